"""What training takes for granted of nets, objectives and augmentations is tried beforehand."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import spnb
from tests.run.problems import problem, relative

PoolOf = Callable[[int], spnb.WorkerPool]


class Net(nn.Module):
    """12 inputs, one hidden layer, 3 outputs, in a forward that tests override."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(12, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        return self.body(x).tanh()


class NonReentrant(Net):
    def hidden(self, x: Tensor) -> Tensor:
        return checkpoint(super().hidden, x, use_reentrant=False)


class TwoSegments(Net):
    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpoint(self.hidden, x.clone().requires_grad_(), use_reentrant=True)
        return checkpoint(self.head, hidden, use_reentrant=True)


@pytest.mark.parametrize("net", [NonReentrant, TwoSegments])
@pytest.mark.parametrize("objective", [spnb.ELBO, spnb.PredictiveNLL, spnb.EnergyScore])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("in_flight", [1, 3])
@pytest.mark.parametrize("prior", [None, spnb.priors.scale_mixture()])
def test_recomputation_on_the_way_back_finds_the_same_weights(
    net: type[nn.Module],
    objective: type[spnb.Objective],
    recompute: bool,
    in_flight: int,
    prior: spnb.priors.Prior | None,
) -> None:
    expected = spnb.gradients(*problem(net=Net, prior=prior), objective=objective(), num_samples=3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.vmap cannot evaluate several samples")
        found = spnb.gradients(
            *problem(net=net, prior=prior),
            objective=objective(),
            num_samples=3,
            recompute=recompute,
            samples_in_flight=in_flight,
        )
    assert relative(found, expected) <= 1e-12


def test_recomputation_is_refused_where_it_finds_other_weights() -> None:
    """Pyro's NUTS goes backwards when the net has its own weights again."""
    posterior, data = problem(net=NonReentrant)
    with pytest.raises(ValueError, match=r"The gradient of 'body.weight'.*checkpoint"):
        spnb.nuts(posterior.model, data, num_chains=1, num_samples=4, warmup=1)


class Hooked(Net):
    def __init__(self) -> None:
        super().__init__()
        self.body.weight.register_hook(lambda gradient: 0 * gradient)


class Remembering(Net):
    """Keeps a weight where nobody can replace it."""

    def __init__(self) -> None:
        super().__init__()
        self.own = [self.body.weight]

    def hidden(self, x: Tensor) -> Tensor:
        return F.linear(x, self.own[0], self.body.bias).tanh()


class Detached(Net):
    """Computes features as one does with a backbone that is not to be trained."""

    def hidden(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().hidden(x)


class Unused(Net):
    """Has a second head that it does not use, which is no mistake."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(10, 2)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Hooked, r"'body.weight' has a hook, which is not called"),
        (Remembering, "does not use the weights that it is given"),
        (Detached, r"No gradient reaches 2 of the 4 parameters, 'body.weight' among them"),
    ],
)
def test_nets_that_would_train_other_weights_are_refused(
    net: type[nn.Module], message: str
) -> None:
    posterior, data = problem(net=net)
    for run in (spnb.fit, spnb.gradients):
        with pytest.raises(ValueError, match=message):
            run(posterior, data)


def test_nets_are_left_as_they_were() -> None:
    posterior, data = problem(net=Unused)
    before = {name: p.clone() for name, p in posterior.model.net.named_parameters()}
    spnb.fit(posterior, data)
    for name, parameter in posterior.model.net.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.grad is None


def test_a_net_bound_to_the_one_that_was_copied_is_refused() -> None:
    """fit trains a copy, whose forward is still that of the net it was copied from."""
    torch.manual_seed(0)
    net = nn.Linear(12, 3)
    net.forward = lambda x: F.linear(x, net.weight, net.bias)  # type: ignore[method-assign]
    posterior = spnb.MeanField(spnb.BayesianModel(net))
    with pytest.raises(ValueError, match="No gradient reaches|does not use the weights"):
        spnb.fit(posterior, problem(dtype=torch.float32)[1])


class OwnScale(spnb.likelihoods.Likelihood):
    """Reads its parameter itself, past the predictions."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, predictions: Tensor) -> Any:
        return dist.Normal(predictions, self.log_scale.exp())


def test_a_likelihoods_parameter_that_would_never_be_trained_is_refused() -> None:
    posterior, data = problem(likelihood=OwnScale())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'likelihood.log_scale' would never be trained.*attach"):
        spnb.fit(posterior, data)


def test_a_net_that_was_changed_is_refused() -> None:
    posterior, data = problem(net=Net)
    posterior.model.net.head = nn.Linear(10, 3).double()
    for run in (spnb.fit, spnb.score):
        with pytest.raises(ValueError, match=r"The net was changed after BayesianModel\(net\)"):
            run(posterior, data)
    posterior, data = problem(net=Net)
    posterior.model.net.body.requires_grad_(False)
    with pytest.raises(ValueError, match=r"changed after.*'body.bias' was .*frozen"):
        spnb.predict(posterior, data[0])


def test_fit_within_no_grad() -> None:
    posterior, data = problem()
    expected = spnb.fit(posterior, data).history.loss
    with torch.no_grad():
        assert spnb.fit(posterior, data).history.loss == expected
        assert spnb.gradients(posterior, data).keys() == {"loc", "rho"}


@pytest.mark.parametrize(
    "mode", [torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16)]
)
def test_modes_in_which_nothing_can_be_trained(mode: Any) -> None:
    with mode, pytest.raises(RuntimeError, match="call fit outside of it"):
        spnb.fit(*problem())


# -- nets that torch.vmap cannot take --------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x.view(len(x), 4, 3))[0][:, -1])


class Branching(Net):
    def forward(self, x: Tensor) -> Tensor:
        outputs = super().forward(x)
        return outputs if outputs.abs().max().item() < 1e6 else -outputs


class Writing(Net):
    def forward(self, x: Tensor) -> Tensor:
        outputs = x.new_zeros(len(x), 3)
        outputs[:, :3] = super().forward(x)
        return outputs


class Masking(Net):
    def forward(self, x: Tensor) -> Tensor:
        outputs = 1 * super().forward(x)
        outputs[outputs > 3.0] = 3.0
        return outputs


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=True)
        self.embed = nn.Linear(3, 6)
        self.encoder, self.head = nn.TransformerEncoder(layer, 1), nn.Linear(6, 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.view(len(x), 4, 3)
        mixed = self.encoder(self.embed(tokens), src_key_padding_mask=tokens[..., 0] > 1.5)
        return self.head(mixed.mean(1))


@pytest.mark.parametrize("net", [Recurrent, Branching, Writing, Masking, Encoder])
@pytest.mark.parametrize("objective", [spnb.ELBO, spnb.PredictiveNLL])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_samples_of_any_net_may_be_in_flight(
    net: type[nn.Module], objective: type[spnb.Objective]
) -> None:
    posterior, data = problem(net=net)
    expected = spnb.gradients(posterior, data, num_samples=4, objective=objective())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = spnb.gradients(
            posterior, data, num_samples=4, objective=objective(), samples_in_flight=4
        )
    assert relative(found, expected) <= 1e-12
    told = [str(w.message) for w in caught if "one after the other" in str(w.message)]
    assert len(told) <= 1
    one_by_one = spnb.predict(posterior, data[0], num_samples=4)
    at_once = spnb.predict(posterior, data[0], num_samples=4, samples_in_flight=4)
    torch.testing.assert_close(at_once, one_by_one, rtol=0, atol=1e-12)


def test_that_vmap_cannot_take_a_net_is_said_once() -> None:
    posterior, data = problem(net=Recurrent)
    with pytest.warns(UserWarning, match="this Recurrent at once: .* one after the other") as told:
        spnb.fit(posterior, data, num_samples=4, samples_in_flight=4, epochs=3, batch_size=6)
    assert len(told) == 1


def test_wrong_input_is_not_put_down_to_vmap() -> None:
    posterior, (x, _) = problem()
    with pytest.raises(ValueError, match="cannot evaluate x, 8 rows of shape"):
        spnb.predict(posterior, x[:, :5], samples_in_flight=4)
    assert not posterior.model.one_by_one


# -- rows that mix ---------------------------------------------------------------------------------


class SequenceFirst(nn.Module):
    """Forgets batch_first=True: the batch is read as time."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x.view(len(x), 4, 3))[0][:, -1])


class Centred(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - x.mean(0)) / (x.std(0) + 1e-3))


class Functional(Net):
    def hidden(self, x: Tensor) -> Tensor:
        return F.batch_norm(super().hidden(x), None, None, training=True)


class Attending(nn.Module):
    """Attention over the rows of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.attend, self.head = nn.MultiheadAttention(12, 2), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attend(x, x, x)[0])


class Causal(nn.Module):
    """Rows see those before them alone."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.cumsum(0))


@pytest.mark.parametrize("net", [SequenceFirst, Centred, Functional, Attending, Causal])
@pytest.mark.parametrize("rows", [2, 3, 24])
def test_nets_that_mix_rows_are_refused(net: type[nn.Module], rows: int) -> None:
    posterior, (x, y) = problem(net=net)
    x, y = x[:rows], y[:rows]
    for run in (
        lambda: spnb.fit(posterior, (x, y)),
        lambda: spnb.predict(posterior, x),
        lambda: spnb.score(posterior, (x, y)),
    ):
        with pytest.raises(ValueError, match=r"mixes the rows|cannot evaluate x, 1 rows"):
            run()


def test_equal_neighbours_hide_no_mixing() -> None:
    posterior, (x, y) = problem(net=SequenceFirst, rows=64)
    with pytest.raises(ValueError, match="mixes the rows"):
        spnb.fit(posterior, (x[:4].repeat_interleave(16, 0), y))


class Restless(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * random.random()


class InPlace(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(0.5))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Restless, "other outputs each time"),
        (InPlace, r"wrote into its input.*x.clone\(\)"),
    ],
)
def test_nets_that_are_no_function_of_a_row(net: Callable[[], nn.Module], message: str) -> None:
    posterior, (x, y) = problem(net=net, likelihood="normal")
    with pytest.raises(ValueError, match=message):
        spnb.fit(posterior, (x, y))
    with pytest.raises(ValueError, match=message):
        spnb.predict(posterior, x)


# -- objectives and augmentations ------------------------------------------------------------------


def most_likely(predictions: Tensor, targets: Tensor) -> Tensor:
    """Not linear in the samples."""
    return predictions.softmax(-1).amax(0).sum(-1)


def centred(predictions: Tensor, targets: Tensor) -> Tensor:
    """A loss of each item that looks at the others."""
    losses = predictions.square().mean((0, 2))
    return losses - losses.mean()


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (spnb.Objective(most_likely, linear_in_samples=True), "not the mean of its losses of each"),
        (spnb.Objective(centred), "must not depend on the rest of the batch"),
        (spnb.Objective(lambda p, y: p), r"gave \(3, 4, 3\)"),
    ],
)
def test_objectives_that_are_not_what_they_say(objective: spnb.Objective, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spnb.fit(*problem(), objective=objective)


def fewer(x: Tensor, generator: Generator) -> Tensor:
    return x[:-1]


def as_doubles(x: Tensor, generator: Generator) -> Tensor:
    return x.float()


def with_global_noise(x: Tensor, generator: Generator) -> Tensor:
    return x + torch.randn_like(x)


def with_python_noise(x: Tensor, generator: Generator) -> Tensor:
    return x + random.random()


def with_numpys_noise(x: Tensor, generator: Generator) -> Tensor:
    return x + np.random.normal()


def in_place(x: Tensor, generator: Generator) -> Tensor:
    return x.add_(1.0)


def infinite(x: Tensor, generator: Generator) -> Tensor:
    return x / 0


def nothing(x: Tensor, generator: Generator) -> None:
    return None


@pytest.mark.parametrize(
    ("augment", "error", "message"),
    [
        (fewer, ValueError, r"augment=fewer made \(23, 12\) torch.float64 of \(24, 12\)"),
        (as_doubles, ValueError, "made .* torch.float32 of .* torch.float64"),
        (with_global_noise, ValueError, "do not come from its generator"),
        (with_python_noise, ValueError, "do not come from its generator"),
        (with_numpys_noise, ValueError, "do not come from its generator"),
        (in_place, ValueError, r"augment=in_place changed the inputs"),
        (infinite, ValueError, "augment=infinite made values that are NaN or infinite"),
        (nothing, TypeError, "augment=nothing returned a NoneType"),
    ],
)
@pytest.mark.parametrize("views", ["shared", "per_sample"])
def test_augmentations_that_would_be_misunderstood(
    augment: Any, error: type[Exception], message: str, views: Any
) -> None:
    with pytest.raises(error, match=message):
        spnb.fit(*problem(), augment=augment, views=views)


def test_what_is_not_finite_is_named() -> None:
    """Later in a run, too: an augmentation, an objective, or the weights."""
    posterior, data = problem(rows=24)
    calls = []

    def later(x: Tensor, generator: Generator) -> Tensor:
        calls.append(len(x))
        return x if len(calls) < 3 else x / 0

    with pytest.raises(FloatingPointError, match=r"Step 2, rank 0.*It is augment that made inputs"):
        spnb.fit(posterior, data, augment=later, batch_size=6)

    def root(predictions: Tensor, targets: Tensor) -> Tensor:
        return (predictions.mean((0, 2)) * 0).sqrt()

    with pytest.raises(FloatingPointError, match=r"Predictions are finite, from .* Objective"):
        spnb.fit(posterior, data, objective=spnb.Objective(root))
    with pytest.raises(FloatingPointError, match="A smaller learning_rate"):
        spnb.fit(posterior, data, learning_rate=1e200, epochs=5)


# -- ranks ----------------------------------------------------------------------------------------


def test_each_rank_must_have_the_whole_data_set(pool_of: PoolOf) -> None:
    pool = pool_of(2)
    posterior, (x, y) = problem()

    def own_shard() -> object:
        rank = torch.distributed.get_rank()
        return spnb.fit(posterior, (x[rank::2], y[rank::2]), layout=spnb.Layout(sample=2))

    with pytest.raises(ValueError, match=r"Rank 0 was handed x float64 \[12, 12\].*no shards"):
        pool.run(own_shard)

    def other_targets() -> object:
        targets = y.clone()
        targets[torch.distributed.get_rank() :: 2] = 0
        return spnb.fit(posterior, (x, targets), layout=spnb.Layout(data=2))

    with pytest.raises(ValueError, match="rank 1 x float64"):
        pool.run(other_targets)


def test_ranks_without_a_layout_are_told(
    pool_of: PoolOf, capfd: pytest.CaptureFixture[str]
) -> None:
    posterior, data = problem()
    pool_of(2).run(spnb.fit, posterior, data)
    told = capfd.readouterr()
    assert (told.out + told.err).count("fit was called on 2 ranks without a layout") == 1
