"""Single explorables as pages of their own, for a talk or a reader without JupyterLab.

`python -m spnb page posterior` has Voilà run a notebook of one cell and show what it gives. The
page is live: behind it is a kernel, so each setting is computed as in the notebook.
"""

from __future__ import annotations

import copy
import os
import signal
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from spnb.maths import likelihoods, priors
from spnb.maths.models import BayesianModel
from spnb.maths.networks import ViT
from spnb.maths.posteriors import MeanField
from spnb.parallel.pool.options import check_whole
from spnb.run import machines
from spnb.run.machine import Machine
from spnb.run.plan import Plan, plan
from spnb.teach import datasets
from spnb.teach.explorable import Explorable
from spnb.teach.explore.fits import Fits
from spnb.teach.explore.planner import layout_planner
from spnb.teach.explore.posterior import posterior_explorer

SEED = 0


@dataclass(frozen=True)
class Page:
    """An explorable with a heading and a few words.

    Attributes:
        title: the heading.
        words: what there is to see and to try, in Markdown.
        make: makes the explorable.
    """

    title: str
    words: str
    make: Callable[[], Explorable]


def posterior() -> Explorable:
    """The posterior explorer of notebook 01 on the CO2 record, with the network it is about."""
    record = datasets.co2()
    train, test = record.between(1963.4, 1965.0), record.between(1965.0, 1965.5)
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        plain = nn.Sequential(nn.Linear(1, 12), nn.Tanh(), nn.Linear(12, 1))
    unit = float(datasets.Scaling.of(train.values).scale)  # in ppm

    def make_model(prior_scale: float, noise: float) -> BayesianModel:
        likelihood = likelihoods.Normal(noise / unit)
        return BayesianModel(copy.deepcopy(plain), priors.fan_in(prior_scale), likelihood)

    fits = Fits(make_model, train, test, seed=SEED)
    x, y = fits.data
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.03)
    for _ in range(1500):
        optimizer.zero_grad()
        (plain(x) - y).square().mean().backward()
        optimizer.step()
    return posterior_explorer(fits)


def planner() -> Explorable:
    """The layout planner for two vision transformers on two cards, from data sheets."""

    def planned(net: nn.Module, rows: int, side: int, machine: Machine) -> Plan:
        images = torch.empty(rows, 3, side, side, device="meta")
        data = images, torch.zeros(rows, device="meta").long()
        posterior = MeanField(BayesianModel(net))
        return plan(posterior, data, num_samples=8, machine=machine, world_size=1)

    with torch.device("meta"):
        small = ViT()
        large = ViT(
            image_size=224, patch=16, dim=1024, depth=16, heads=16, hidden=4096, classes=1000
        )
    plans = {
        "A100, ViT of 2.7 M": planned(small, 256, 32, machines.A100),
        "H100, ViT of 2.7 M": planned(small, 256, 32, machines.H100),
        "H100, ViT of 200 M": planned(large, 64, 224, machines.H100),
    }
    return layout_planner(plans, ranks=8, samples=16, rows=256)


PAGES = {
    "posterior": Page(
        "What does a network know?",
        "A network of 37 weights on the CO2 record of Mauna Loa, which has a hole. Choose how its "
        "posterior is found, how wide its prior is, and how many weight samples you look at. A "
        "setting that nobody asked for yet is fitted then and there, which takes some seconds.",
        posterior,
    ),
    "planner": Page(
        "How would you cut the work?",
        "The predicted time of a training step for every layout, samples × data, with what each "
        "rank sends and needs. Nothing is run: machines are taken from data sheets, so believe it "
        "within a factor of two.",
        planner,
    ),
}
"""Pages by name."""

HOST = "127.0.0.1"
"""Where they are served."""

NEEDS_A_LAB = "jupyterlab-jupytext"
"""An extension that Voilà would load as well, and that fails without a Lab around it."""


def page(name: str) -> Page:
    """A page by its name.

    Raises:
        ValueError: there is no such page.
    """
    if name not in PAGES:
        raise ValueError(f"'{name}' is none of the pages: {', '.join(PAGES)}.")
    return PAGES[name]


def serve(name: str, port: int = 8866, browser: bool = True) -> None:
    """Show a page until interrupted or terminated, to this computer only.

    Args:
        name: one of `PAGES`.
        port: to listen on.
        browser: whether to open a browser.

    Raises:
        ValueError: there is no such page, or nothing can listen on the port.
        ModuleNotFoundError: Voilà is not installed.
    """
    shown = page(name)
    _check_port(port)
    if find_spec("voila") is None:
        raise ModuleNotFoundError("A page needs Voilà: `pip install 'spnb[lab]'` brings it.")
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, writes
    from voila.app import Voila

    cells = [
        new_markdown_cell(f"# {shown.title}\n\n{shown.words}"),
        new_code_cell(f"from spnb.teach.pages import page\n\npage({name!r}).make()"),
    ]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that kernels end, too
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.ipynb"
        file.write_text(writes(new_notebook(cells=cells)), encoding="utf-8")
        options = [f"--port={port}", "--Voila.port_retries=0", f"--Voila.ip={HOST}"]
        options += ["--no-browser"] * (not browser)
        options += [f"--VoilaConfiguration.extension_denylist={NEEDS_A_LAB}"]
        before, tempfile.tempdir = tempfile.tempdir, folder  # what Voilà leaves goes with it
        try:
            Voila.launch_instance([str(file), *options])
        finally:
            tempfile.tempdir = before


def _check_port(port: int) -> None:
    """See whether a page can be served at a port."""
    if not 1 <= check_whole("port", port) <= 65535:
        raise ValueError(f"port={port} is no port: they go from 1 to 65535.")
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        with socket.create_server((HOST, 0)) as free:
            other = free.getsockname()[1]
        raise ValueError(
            f"Port {port} cannot be listened on ({os.strerror(error.errno or 0)}): end what uses "
            f"it, or choose another one, such as --port {other}."
        ) from error
