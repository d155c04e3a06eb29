"""Priors: shapes, supports, precision, and the ready-made rules."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from spnb.maths import priors
from spnb.maths.models import BayesianModel
from spnb.maths.networks import ViT
from spnb.maths.swin import Swin


def parameter(*shape: int, dtype: torch.dtype = torch.float64) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape, dtype=dtype))


def test_a_scalar_is_expanded_and_independent_over_elements() -> None:
    resolved = priors.resolve(dist.Normal(0.0, 2.0), "w", parameter(3, 4))
    assert resolved.batch_shape == ()
    assert resolved.event_shape == (3, 4)
    expected = 12 * dist.Normal(0.0, 2.0).log_prob(torch.tensor(1.0))
    torch.testing.assert_close(resolved.log_prob(torch.ones(3, 4)).float(), expected)


def test_one_of_the_parameters_shape_is_taken_as_it_is() -> None:
    scales = torch.tensor([1.0, 2.0, 3.0])
    resolved = priors.resolve(dist.Normal(torch.zeros(3), scales), "b", parameter(3))
    torch.testing.assert_close(resolved.base_dist.scale, scales.double())
    assert resolved.event_shape == (3,)


def test_a_joint_distribution_stays_joint() -> None:
    joint = dist.MultivariateNormal(torch.zeros(3), torch.eye(3) + 0.5)
    assert priors.resolve(joint, "b", parameter(3)).event_shape == (3,)


def test_a_prior_takes_the_precision_of_the_parameter() -> None:
    for prior in (dist.Normal(0.0, 0.1), dist.StudentT(3.0), priors.scale_mixture()):
        resolved = priors.resolve(prior, "w", parameter(2, 2))
        assert resolved.sample().dtype == torch.float64


def test_a_wrong_shape_is_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"'w' has shape \(5,\), the parameter \(3, 4\)"):
        priors.resolve(dist.Normal(torch.zeros(5), 1.0), "w", parameter(3, 4))


def test_half_a_line_is_refused() -> None:
    for prior in (dist.HalfNormal(1.0), dist.LogNormal(0.0, 1.0), dist.Uniform(-1.0, 1.0)):
        with pytest.raises(ValueError, match="whole line"):
            priors.resolve(prior, "w", parameter(3))


def test_a_rule_that_returns_no_distribution_is_refused() -> None:
    with pytest.raises(TypeError, match="'w' is a float"):
        priors.resolve(lambda name, p: 1.0, "w", parameter(3))


def test_fan_in_keeps_the_variance_of_a_sum() -> None:
    rule = priors.fan_in(gain=1.5)
    linear = priors.resolve(rule, "0.weight", parameter(7, 100))
    assert linear.base_dist.scale[0, 0].item() == pytest.approx(1.5 / 10)
    convolution = priors.resolve(rule, "0.weight", parameter(8, 4, 3, 3))
    assert convolution.base_dist.scale.max().item() == pytest.approx(1.5 / math.sqrt(36))
    gain = priors.resolve(rule, "norm.weight", parameter(5))
    assert gain.base_dist.loc[0].item() == 1.0
    bias = priors.resolve(rule, "0.bias", parameter(5))
    assert (bias.base_dist.loc[0].item(), bias.base_dist.scale[0].item()) == (0.0, 1.5)


class Of(nn.Module):
    """A layer, called with inputs made of the net's own."""

    def __init__(self, layer: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.call = layer, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.layer, x)


def gates(cell: nn.Module, x: Tensor) -> Tensor:
    """The sums of a recurrent cell of 5 inputs and 7 units of state."""
    inputs, state = x.split([5, 7], -1)
    return inputs @ cell.weight_ih.T + state @ cell.weight_hh.T


def first_projection(layer: nn.MultiheadAttention, x: Tensor) -> Tensor:
    return x @ (layer.in_proj_weight if layer.in_proj_weight is not None else layer.k_proj_weight).T


def inner(times: slice) -> Callable[[nn.Module, Tensor], Tensor]:
    """What a convolution gives away from its edges."""
    return lambda layer, x: layer(x)[..., times]


SUMS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "Linear": (nn.Linear(6, 3, bias=False), (6,)),
    "Bilinear": (Of(nn.Bilinear(4, 5, 3, bias=False), lambda f, x: f(*x.split([4, 5], -1))), (9,)),
    "Conv1d, groups": (Of(nn.Conv1d(6, 4, 3, groups=2, bias=False), inner(slice(None))), (6, 8)),
    "depthwise": (Of(nn.Conv1d(6, 6, 3, groups=6, bias=False), inner(slice(None))), (6, 8)),
    "transposed": (Of(nn.ConvTranspose1d(6, 2, 3, bias=False), inner(slice(2, -2))), (6, 8)),
    "transposed, strides that divide": (
        Of(nn.ConvTranspose1d(6, 4, 4, 2, groups=2, bias=False), inner(slice(2, -2))), (6, 8),
    ),
    "transposed, strides that do not": (
        Of(nn.ConvTranspose1d(6, 2, 3, 2, bias=False), inner(slice(2, -3))), (6, 9),
    ),
    "transposed, stride as long as the filter": (
        Of(nn.ConvTranspose2d(3, 2, 2, 2, bias=False), inner(slice(None))), (3, 4, 4),
    ),
    "attention": (Of(nn.MultiheadAttention(6, 2), first_projection), (6,)),
    "attention, other keys": (
        Of(nn.MultiheadAttention(6, 2, kdim=3, vdim=5), first_projection), (3,),
    ),
    "LSTM cell": (Of(nn.LSTMCell(5, 7), gates), (12,)),
    "GRU cell": (Of(nn.GRUCell(5, 7), gates), (12,)),
    "weight norm": (parametrizations.weight_norm(nn.Linear(6, 3, bias=False)), (6,)),
    "weight norm, Conv1d": (
        Of(parametrizations.weight_norm(nn.Conv1d(6, 4, 3, bias=False)), inner(slice(None))),
        (6, 8),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SUMS)
def test_fan_in_keeps_the_variance_of_the_sums_of_every_layer(kind: str) -> None:
    """Over weights from the prior; inputs are 1 or -1."""
    torch.manual_seed(0)
    net, shape = SUMS[kind]
    model = BayesianModel(net, priors.fan_in(1.5))
    weights = {name: prior.sample((4000,)) for name, prior in model.priors().items()}
    flat = torch.cat([values.flatten(1) for values in weights.values()], 1)
    sums = model.predict(flat, torch.zeros(0), torch.randn(4, *shape).sign())
    assert sums.square().mean().item() == pytest.approx(1.5**2, rel=0.05)


class Tables(nn.Module):
    """The parameters beside the layers of a vision transformer, as torchvision names them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, 8, 4, 4)
        self.class_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.pos_embedding = nn.Parameter(torch.zeros(1, 5, 8))
        self.relative_position_bias_table = nn.Parameter(torch.zeros(49, 2))
        self.layer_scale = nn.Parameter(torch.ones(8, 1, 1))
        self.pos_tables = nn.ParameterList([torch.zeros(3, 8)])
        self.attention = nn.MultiheadAttention(8, 2, add_bias_kv=True)
        self.norm = nn.LayerNorm([4, 8])
        self.slope = nn.PReLU(8)
        self.embed = nn.Embedding(20, 8)
        self.bag = nn.EmbeddingBag(20, 8)
        self.head = nn.Linear(8, 20)


def moments(net: nn.Module, gain: float = 2.0) -> dict[str, tuple[float, float]]:
    """Mean and scale of each parameter's prior."""
    found = BayesianModel(net, priors.fan_in(gain)).priors()
    return {
        name: (prior.base_dist.loc.flatten()[0].item(), prior.base_dist.scale.flatten()[0].item())
        for name, prior in found.items()
    }


def test_fan_in_of_what_meets_one_input() -> None:
    found = moments(Tables())
    alone = {"class_token", "pos_embedding", "relative_position_bias_table", "layer_scale",
             "pos_tables.0", "attention.bias_k", "attention.bias_v", "attention.in_proj_bias",
             "norm.bias", "embed.weight", "bag.weight", "head.bias"}  # fmt: skip
    assert {name for name, moment in found.items() if moment == (0.0, 2.0)} >= alone
    assert found["norm.weight"] == (1.0, 2.0)
    assert found["slope.weight"] == (0.25, 2.0)
    assert found["conv_proj.weight"] == (0.0, pytest.approx(2 / math.sqrt(48)))
    assert found["head.weight"] == (0.0, pytest.approx(2 / math.sqrt(8)))


def test_fan_in_of_tied_weights_is_that_of_the_larger_sum() -> None:
    net = Tables()
    net.head.weight = net.embed.weight
    assert moments(net)["embed.weight"] == (0.0, pytest.approx(2 / math.sqrt(8)))


def test_fan_in_of_the_librarys_transformers() -> None:
    swin = moments(Swin((8, 8), dim=8, depths=(2, 2), heads=(2, 4)))
    tables = [name for name in swin if name.endswith(".bias") and "." in name[:-5]]
    assert {swin[name] for name in tables} == {(0.0, 2.0)}  # of positions, and of layers
    assert swin["down.0.0.qkv.weight"] == (0.0, pytest.approx(2 / math.sqrt(8)))
    assert swin["merge.0.linear.weight"] == (0.0, pytest.approx(2 / math.sqrt(32)))
    plain = ViT(8, 4, 1, 8, 1, 2, 16, 3)  # has layers alone
    for name, parameter in plain.named_parameters():
        by_shape = priors.fan_in(2.0)(name, parameter)
        assert moments(plain)[name] == (by_shape.loc.item(), by_shape.scale.item())


def test_a_rule_around_fan_in_knows_the_layers_as_well() -> None:
    inner = priors.fan_in(2.0)

    def rule(name: str, parameter: Tensor) -> dist.TorchDistribution | None:
        return None if name.endswith("bias") else inner(name, parameter)

    model = BayesianModel(nn.ConvTranspose1d(6, 2, 4, 2), rule)
    assert model.drawn[0].prior.base_dist.scale[0, 0, 0].item() == pytest.approx(2 / math.sqrt(12))
    assert inner("weight", parameter(6, 2, 4)).scale.item() == pytest.approx(2 / math.sqrt(8))


class Mystery(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Parameter(torch.zeros(3, 4))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Mystery(), r"how many inputs meet 'projection', \(3, 4\), in a Mystery: give its prior"),
        (parametrizations.orthogonal(nn.Linear(3, 3)), "'parametrizations.weight.original', "),
        (parametrizations.spectral_norm(nn.Linear(3, 3)), "'parametrizations.weight.original', "),
        (parametrizations.weight_norm(nn.ConvTranspose1d(3, 3, 2)), "'parametrizations.weight."),
        (parametrizations.weight_norm(nn.Linear(3, 3), dim=1), "'parametrizations.weight.orig"),
    ],
)
def test_fan_in_refuses_what_it_does_not_know(net: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BayesianModel(net, priors.fan_in())
    rule = priors.fan_in()
    other = dist.Normal(0.0, 0.1)
    BayesianModel(net, lambda name, p: rule(name, p) if "bias" in name else other)


def test_the_scale_mixture_has_the_density_of_its_formula() -> None:
    mixture = priors.scale_mixture(weight=0.25, wide=1.0, narrow=0.1)
    w = torch.tensor(0.3)
    expected = 0.25 * dist.Normal(0.0, 1.0).log_prob(w).exp()
    expected = expected + 0.75 * dist.Normal(0.0, 0.1).log_prob(w).exp()
    torch.testing.assert_close(mixture.log_prob(w).exp(), expected)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.0])
def test_a_mixture_needs_two_components(weight: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        priors.scale_mixture(weight=weight)


def test_fan_in_needs_a_positive_gain() -> None:
    with pytest.raises(ValueError, match="gain=0"):
        priors.fan_in(gain=0)


def test_priors_follow_the_model_to_another_precision() -> None:
    for prior in (dist.Normal(0.0, 1.0), priors.scale_mixture()):
        model = BayesianModel(nn.Linear(2, 2), prior=prior).double()
        assert all(site.prior.sample().dtype == torch.float64 for site in model.drawn)


def test_one_number_stays_one_number_on_the_way() -> None:
    """Priors of 200 million weights would otherwise take 1.6 GB on a GPU."""
    model = BayesianModel(nn.Linear(30, 20), prior=priors.fan_in()).double()
    for site in model.drawn:
        scale = site.prior.base_dist.scale
        assert scale.shape == site.shape and scale.dtype == torch.float64
        assert scale.unique().numel() == 1
        assert scale.untyped_storage().nbytes() == 8


def test_a_prior_that_fits_is_not_made_anew() -> None:
    prior, weights = dist.Normal(torch.zeros(2), 1.0), torch.zeros(2)
    assert priors.like(prior, weights) is prior
    assert priors.like(prior, weights.double()).loc.dtype == torch.float64


def test_fan_in_can_be_sent_to_other_processes() -> None:
    rule = pickle.loads(pickle.dumps(priors.fan_in(2.0)))
    net = nn.Linear(16, 3)
    assert BayesianModel(net, prior=rule).sites[0].prior.base_dist.scale[0, 0] == 0.5
