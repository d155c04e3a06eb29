"""One sample after the other in the same memory, against autograd all the way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import spnb
from spnb.maths.posteriors import mean_field
from spnb.maths.posteriors.drawing import Drawing
from tests.run.problems import Attention, mlp, problem, relative


def some_deterministic(name: str, p: Tensor) -> spnb.priors.Prior | None:
    return None if p.dim() < 2 else spnb.priors.scale_mixture()


@pytest.mark.parametrize("prior", [None, spnb.priors.scale_mixture(), some_deterministic])
@pytest.mark.parametrize("net", [mlp, Attention])
def test_the_chain_rule_written_out_is_autograds(
    monkeypatch: pytest.MonkeyPatch, net: type[nn.Module], prior: spnb.priors.Prior
) -> None:
    posterior, data = problem(25, net=net, prior=prior, likelihood="normal")
    written = spnb.gradients(posterior, data, num_samples=5)
    several = spnb.gradients(posterior, data, num_samples=5, samples_in_flight=5)
    monkeypatch.setattr(spnb.MeanField, "drawing", property(lambda self: Drawing))
    general = spnb.gradients(posterior, data, num_samples=5)
    assert relative(written, several) <= 1e-12
    assert relative(written, general) <= 1e-12
    assert mean_field.NormalDrawing.draw is not Drawing.draw


class Forgetful(nn.Module):
    """A net that does not use all of its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(12, 3), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


def test_a_parameter_that_is_not_used_has_the_gradient_of_its_divergence() -> None:
    posterior, data = problem(24, net=Forgetful)
    found = spnb.gradients(posterior, data, num_samples=3)
    several = spnb.gradients(posterior, data, num_samples=3, samples_in_flight=3)
    assert relative(found, several) <= 1e-12
    none = spnb.gradients(posterior, data, objective=spnb.ELBO(temperature=0.0))
    unused = posterior.model.unflatten(none["loc"], posterior.model.drawn)["unused.weight"]
    assert not unused.any()


def test_the_net_is_left_as_it_was_when_an_objective_fails() -> None:
    posterior, data = problem()
    own = dict(posterior.model.net.named_parameters())

    def fails(predictions: Tensor, targets: Tensor) -> Tensor:
        if len(targets) > 3:
            raise ArithmeticError("on purpose")
        return predictions.mean((0, 2))

    objective = spnb.Objective(fails, linear_in_samples=True)
    with pytest.raises(ArithmeticError, match="on purpose"):
        spnb.gradients(posterior, data, objective=objective)
    assert dict(posterior.model.net.named_parameters()).keys() == own.keys()
    assert all(isinstance(p, nn.Parameter) for p in posterior.model.net.parameters())


def most_kept(num_samples: int, recompute: bool) -> int:
    """The largest number of tensors that autograd keeps at the same time in a step."""
    posterior, data = problem(64)
    kept: dict[int, Tensor] = {}
    most = 0

    def pack(tensor: Tensor) -> int:
        nonlocal most
        key = len(kept) + 1 if not kept else max(kept) + 1
        kept[key] = tensor
        most = max(most, len(kept))
        return key

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda key: kept.pop(key)):
        spnb.gradients(
            posterior, data, objective=spnb.PredictiveNLL(), num_samples=num_samples,
            recompute=recompute,
        )  # fmt: skip
    return most


def test_memory_of_recomputed_samples_does_not_grow() -> None:
    """Autograd keeps the graphs of all samples of an exact objective, or of one at a time."""
    assert most_kept(20, recompute=False) > 5 * most_kept(2, recompute=False)
    assert most_kept(20, recompute=True) <= most_kept(2, recompute=True) + 4
