"""Posteriors in files: safetensors, which hold numbers and words and nothing that is executed.

A file says which method it is and which parameters its model has. The network itself is code, and
is not in it: to load, give the model again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors import METHODS, Posterior
from spnb.run import files

FORMAT, VERSION = "spnb posterior", "2"


def save(posterior: Posterior, path: str | os.PathLike[str]) -> Path:
    """Write a posterior into a file, whole or not at all.

    Args:
        posterior: the posterior.
        path: of the file, usually ending in ``.safetensors``; one that is there is replaced.

    Returns:
        The path.

    Raises:
        TypeError: not one of the known methods, `spnb.maths.posteriors.METHODS`.
        OSError: the file cannot be written.
    """
    method = type(posterior).__name__
    if METHODS.get(method) is not type(posterior):
        raise TypeError(
            f"A {method} is none of the known methods: {', '.join(METHODS)}. If it is your own, say"
            f" `spnb.maths.posteriors.METHODS['{method}'] = {method}` before saving and loading."
        )
    path = Path(path)
    about = {"format": FORMAT, "version": VERSION, **describe(posterior)}
    files.write(path, posterior.state_dict(), about)
    return path


def load(path: str | os.PathLike[str], model: BayesianModel) -> Posterior:
    """Read a posterior from a file. Nothing in the file is executed.

    Args:
        path: of the file.
        model: a model with the same parameters as the one that was saved, in the same precision;
            its own values do not matter.

    Returns:
        The posterior, on the model's device.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds something else, or belongs to another model.
    """
    path = Path(path)
    tensors, about = files.read(path, FORMAT, VERSION)
    try:
        make = METHODS[about["method"]]  # no other class is ever made from what a file says
        sites, options = (json.loads(about[name]) for name in ("sites", "options"))
        check_sites(path, list(sites), _sites(model))
        posterior: Posterior = make(model, **options)
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"'{path}' says nothing that makes sense here: {error!r}.") from None
    own = posterior.state_dict()
    for name in sorted({*own, *tensors}):
        here, there = (_form(of.get(name)) for of in (own, tensors))
        if here != there:
            raise ValueError(
                f"'{name}' is {there} in '{path}' and {here} with this model: give the model as it "
                "was, in the same precision."
            )
    posterior.load_state_dict(tensors)
    return posterior.eval()


def describe(posterior: Posterior) -> dict[str, str]:
    """Say which method it is, how it was made, and which parameters its model has, as words."""
    return {
        "method": type(posterior).__name__,
        "options": json.dumps(posterior.options()),
        "sites": json.dumps(_sites(posterior.model)),
    }


def _sites(model: BayesianModel) -> list[list[Any]]:
    """Name, shape, and whether it is drawn, of each parameter."""
    return [[site.name, list(site.shape), site.prior is not None] for site in model.sites]


def check_sites(path: Path, there: list[list[Any]], here: list[list[Any]]) -> None:
    """Refuse a file of a model with other parameters.

    Raises:
        ValueError: says which parameter differs.
    """
    for saved, own in zip(there, here, strict=False):
        if saved != own:
            raise ValueError(
                f"'{path}' belongs to another model: it has {_words(saved)} where this one has "
                f"{_words(own)}."
            )
    if len(there) != len(here):
        raise ValueError(
            f"'{path}' belongs to another model, of {len(there)} parameters; this one has "
            f"{len(here)}."
        )


def _words(site: list[Any]) -> str:
    name, shape, drawn = site
    return f"'{name}' {shape} {'with' if drawn else 'without'} a prior"


def _form(tensor: Any) -> str:
    if tensor is None:
        return "missing"
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
