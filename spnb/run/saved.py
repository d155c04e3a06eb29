"""Posteriors in files: safetensors, which hold numbers and words and nothing that is executed.

A file says which method it is and which parameters its model has. The network itself is code, and
is not in it: to load, give the model again.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors import METHODS, Posterior
from spnb.run import checkpoint, files, identity

if TYPE_CHECKING:
    from spnb.run.chains import Chains
    from spnb.run.training import Fitted

FORMAT, VERSION = "spnb posterior", "2"


def save(posterior: Posterior | Fitted | Chains, path: str | os.PathLike[str]) -> Path:
    """Write a posterior into a file, whole or not at all.

    Args:
        posterior: the posterior, or what `spnb.fit` or `spnb.nuts` returned, which holds one.
        path: of the file, usually ending in ``.safetensors``; one that is there is replaced.

    Returns:
        The path.

    Raises:
        TypeError: no posterior, or not one of the known methods, `spnb.maths.posteriors.METHODS`.
        OSError: the file cannot be written.
    """
    given, posterior = type(posterior).__name__, getattr(posterior, "posterior", posterior)
    if not isinstance(posterior, Posterior):
        raise TypeError(
            f"posterior is a {given}; give what spnb.fit returned, or a posterior such as "
            "spnb.MeanField(model)."
        )
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
    """Read a posterior from a file, saved or a checkpoint. Nothing in the file is executed.

    Args:
        path: of a file that `save` has written, or of a checkpoint, such as
            `Checkpoints.best_file`.
        model: a model with the same parameters as the one that was saved, in the same precision;
            its own values do not matter. Where its network or likelihood is another one, there is
            a warning.

    Returns:
        The posterior, on the model's device. That of a run that was interrupted predicts with what
        had been learnt so far.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds something else, or belongs to another model.
    """
    path = Path(path)
    tensors, about = files.read(path, FORMAT, VERSION, (checkpoint.FORMAT, checkpoint.VERSION))
    if about["format"] == checkpoint.FORMAT:
        start = "posterior/"
        tensors = {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
    try:
        make = METHODS[about["method"]]  # no other class is ever made from what a file says
        sites, options = (json.loads(about[name]) for name in ("sites", "options"))
        check_sites(path, list(sites), _sites(model))
        posterior: Posterior = make(model, **options)
        own = describe(posterior)["model"]
        differ, _ = identity.compare(about.get("model", own), own)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"'{path}' says nothing that makes sense here: {error!r}.") from None
    state = posterior.state_dict()
    for name in sorted({*state, *tensors}):
        here, there = (_form(of.get(name)) for of in (state, tensors))
        if here != there:
            raise ValueError(
                f"'{name}' is {there} in '{path}' and {here} with this model: give the model as it "
                "was, in the same precision."
            )
    if differ:
        warnings.warn(
            f"'{path}' was trained with another model: {identity.listed(differ.values())}. What it "
            "predicts with this one may make no sense.",
            stacklevel=2,
        )
    posterior.load_state_dict(tensors)
    posterior.eval()
    if not getattr(posterior, "finished", True):
        posterior.train()
        warnings.warn(
            f"'{path}' holds a {about['method']} whose training had not come to its end: it "
            "predicts with what was reached, without the spread that is still to come. "
            "spnb.fit(posterior, data, ...) trains it further, and to the end.",
            stacklevel=2,
        )
    return posterior


def describe(posterior: Posterior) -> dict[str, str]:
    """Say which method it is, how it was made, and what model it has, as words."""
    return {
        "method": type(posterior).__name__,
        "options": json.dumps(posterior.options()),
        "sites": json.dumps(_sites(posterior.model)),
        "model": identity.describe(
            network=posterior.model.net, likelihood=posterior.model.likelihood
        ),
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
