"""Other libraries doing the same training step as ours, one adapter each.

A step is: forward passes of S samples of the weights, the loss

    mean over samples and rows of -log p(y | x, weights) + KL(posterior || prior) / N,

its gradient, and one update by Adam. The posterior is a normal for each weight (scale 0.02 at
first), the prior Normal(0, 1), the precision float32. Where a library does something else, its
adapter's docstring says so. Every library is used in the fastest documented way that we found.

The libraries are installed beside the environment, see `requirements.txt`; they are looked for
after everything else, so they cannot replace anything of it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.peers.common import Step
    from benchmarks.workloads import Workload

FOLDER = Path(__file__).parents[2] / "build" / "peers"
INSTALL = "pip install --no-deps --target build/peers -r benchmarks/peers/requirements.txt"


@dataclass(frozen=True)
class Peer:
    """One way to do the step.

    Attributes:
        name: what it is called in tables.
        package: the distribution whose version counts.
        module: the adapter.
        function: its function ``(work, num_samples) -> Step``.
        note: what exactly is measured, in a line.
    """

    name: str
    package: str
    module: str
    function: str
    note: str

    def version(self) -> str | None:
        """Version of the library, None where it is not installed."""
        look_in_folder()
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return None

    def make_step(self, work: Workload, num_samples: int) -> Step:
        """The training step, ready to be called.

        Raises:
            NotImplementedError: the library cannot do this; says why.
        """
        look_in_folder()
        function: Callable[[Workload, int], Step]
        function = getattr(importlib.import_module(self.module), self.function)
        return function(work, num_samples)


def look_in_folder() -> None:
    """Let Python find the libraries in `FOLDER`, if there are any, after everything else."""
    if FOLDER.is_dir() and str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))


def _peer(name: str, package: str, module: str, note: str, function: str = "make_step") -> Peer:
    return Peer(name, package, f"benchmarks.peers.{module}", function, note)


#: Steps of one process, by name.
PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        _peer("plain", "torch", "plain", "S plain forward and backward passes, no update"),
        _peer("stacked", "torch", "stacked", "torch.vmap over stacked weights, analytic KL"),
        _peer("torch_blue", "torch_blue", "torch_blue", "vmap, KL from log-probabilities"),
        _peer(
            "torch_blue, analytic KL",
            "torch_blue",
            "torch_blue",
            "vmap, analytic KL, layers draw outputs (local reparameterisation)",
            "make_step_analytic",
        ),
        _peer("Pyro", "pyro-ppl", "pyro", "AutoNormal, Trace_ELBO, a loop over particles"),
        _peer(
            "Pyro, vectorised",
            "pyro-ppl",
            "pyro",
            "AutoNormal, Trace_ELBO(vectorize_particles=True), vmap in the model",
            "make_step_vectorised",
        ),
        _peer(
            "Pyro, JIT",
            "pyro-ppl",
            "pyro",
            "AutoDiagonalNormal, JitTrace_ELBO, a compiled loop over particles",
            "make_step_jit",
        ),
        _peer("TyXe", "tyxe", "tyxe", "VariationalBNN: closed-form KL, a loop over particles"),
        _peer(
            "bayesian-torch",
            "bayesian-torch",
            "bayesian_torch",
            "dnn_to_bnn, a loop over samples, its (averaged) KL",
        ),
        _peer(
            "torchbayesian",
            "torchbayesian",
            "torchbayesian",
            "BayesianModule, a loop over samples, analytic KL",
        ),
        _peer("posteriors", "posteriors", "posteriors", "vi.diag: vmap, KL from log-densities"),
    )
}

#: Steps of several processes, by name: to be called on every rank of a process group.
PARALLEL_PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        _peer(
            "torch_blue, DDP",
            "torch_blue",
            "torch_blue_ddp",
            "S / ranks samples on each rank, DDP averages the gradients",
        ),
        _peer(
            "torch_blue, analytic KL, DDP",
            "torch_blue",
            "torch_blue_ddp",
            "the same with the analytic KL",
            "make_step_analytic",
        ),
    )
}
