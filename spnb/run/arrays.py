"""What users hold as data, as tensors: arrays, tables and lists."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def tensor_of(name: str, values: Any) -> Tensor:
    """A tensor of what a user hands in, in the same memory where that is possible.

    Args:
        name: of the argument, for messages.
        values: a tensor, a numpy array, a pandas DataFrame or Series, or nested lists of numbers.

    Raises:
        TypeError: it holds something else than numbers, or several tensors.
        ValueError: it has masked or missing values, or rows of different lengths.
    """
    if isinstance(values, Tensor):
        return _of_tensor(name, values)
    several = isinstance(values, list | tuple) and any(hasattr(v, "shape") for v in values[:1])
    if isinstance(values, Mapping) or several:
        parts = list(values) if isinstance(values, Mapping) else len(values)
        raise TypeError(
            f"{name} is a {type(values).__name__} of {parts}: give one tensor, and take it apart "
            "in the net's forward, such as x[:, :4] and x[:, 4].long()."
        )
    if hasattr(values, "toarray"):  # scipy's sparse matrices
        raise TypeError(f"{name} is a sparse {type(values).__name__}: give {name}.toarray().")
    if hasattr(values, "to_numpy"):  # tables of pandas and others
        values = values.to_numpy()
    if np.ma.is_masked(values):
        raise ValueError(
            f"{name} is a masked array with {int(np.ma.count_masked(values))} masked values: fill "
            f"them, as in {name}.filled(0), or drop those rows."
        )
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(
            f"{name} is no rectangular array: its rows have different lengths."
        ) from error
    return _of_array(name, array)


def _of_tensor(name: str, values: Tensor) -> Tensor:
    if values.layout is not torch.strided or values.is_nested:
        raise TypeError(f"{name} is a {values.layout} tensor: give {name}.to_dense().")
    if values.is_complex():
        raise TypeError(f"{name} is {values.dtype}: give real numbers, as torch.view_as_real does.")
    return values.detach()


def _of_array(name: str, array: np.ndarray[Any, Any]) -> Tensor:
    if array.dtype == object:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{name} holds {type(array.flat[0]).__name__} objects, not numbers: convert its "
                "columns to numbers first."
            ) from error
    if array.dtype.kind in "US":
        raise TypeError(
            f"{name} holds strings such as {str(array.flat[0])!r}: number the classes, as in "
            f"names, {name} = numpy.unique({name}, return_inverse=True)."
        )
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} is an array of {array.dtype}: give real numbers.")
    # torch has no long doubles, few unsigned numbers, one order of bytes, and no negative strides
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if any(stride < 0 for stride in array.strides):
        array = array.copy()
    with warnings.catch_warnings():  # of arrays that must not be written to: nobody does
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.as_tensor(array)
