"""Every adapter does the training step that it is timed for, and nothing less.

A library that is not installed is skipped; `benchmarks.peers.INSTALL` says how to install all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import cloudpickle
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy

import spnb
from benchmarks.peers import INSTALL, PARALLEL_PEERS, PEERS, Peer
from benchmarks.workloads import INIT_SCALE, LEARNING_RATE, Workload
from spnb.maths.networks import ViT, mlp

cloudpickle.register_pickle_by_value(sys.modules[__name__])

TINY = Workload(
    "tiny MLP", lambda: mlp((6, 8, 3), nn.Tanh), (6,), batch_size=16, num_data=1000, classes=3
)
TINY_VIT = Workload(
    "tiny ViT",
    lambda: ViT(image_size=8, channels=1, dim=8, depth=1, heads=2, hidden=8, classes=3),
    (1, 8, 8),
    batch_size=4,
    num_data=32,
    classes=3,
)
BAYESIAN = [peer for name, peer in PEERS.items() if name != "plain"]
NORMS_LEFT_OUT = ("torch_blue", "bayesian-torch")
AVERAGED_KL = ("bayesian-torch",)

pytestmark = [pytest.mark.exhaustive, pytest.mark.pool]
each_bayesian_peer = pytest.mark.parametrize("peer", BAYESIAN, ids=lambda peer: peer.name)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def installed(peer: Peer) -> Peer:
    assert peer.version() is not None, f"{peer.package} is not installed: {INSTALL}"
    return peer


def loss_of(
    work: Workload, means: list[Tensor], scales: list[Tensor], num_samples: int = 500
) -> Tensor:
    """The loss that all adapters should have, written anew; always with the same noise."""
    net = work.net()
    names = [name for name, _ in net.named_parameters()]
    x, y = work.batch()
    generator = torch.Generator().manual_seed(1)
    weights, kl = {}, torch.zeros(())
    for name, mean, scale in zip(names, means, scales, strict=True):
        noise = torch.randn(num_samples, *mean.shape, generator=generator)
        weights[name] = mean + scale * noise
        prior = torch.distributions.Normal(0.0, 1.0)
        kl = (
            kl
            + torch.distributions.kl_divergence(
                torch.distributions.Normal(mean, scale), prior
            ).sum()
        )
    logits = vmap(lambda one: functional_call(net, one, (x,)))(weights)
    return cross_entropy(logits.flatten(0, 1), y.repeat(num_samples)) + kl / work.num_data


def trained(step: Callable[[], None], work: Workload) -> tuple[list[Tensor], list[Tensor]]:
    """Means and scales of a step, in the order of the network's parameters."""
    now = step.parameters()
    assert set(now) == {name for name, _ in work.net().named_parameters()}
    pairs = [now[name] for name, _ in work.net().named_parameters()]
    return [mean for mean, _ in pairs], [scale for _, scale in pairs]


@each_bayesian_peer
def test_starts_where_all_others_start(peer: Peer) -> None:
    means, scales = trained(installed(peer).make_step(TINY, 2), TINY)
    for mean, scale, weight in zip(means, scales, TINY.net().parameters(), strict=True):
        assert mean.dtype == scale.dtype == torch.float32
        torch.testing.assert_close(mean, weight.detach())
        torch.testing.assert_close(scale, torch.full_like(scale, INIT_SCALE))


@each_bayesian_peer
def test_first_step_follows_the_gradient(peer: Peer) -> None:
    """Adam's first step is the learning rate against the sign of each element's gradient."""
    step = installed(peer).make_step(TINY, 64 if "JIT" not in peer.name else 16)
    means, scales = trained(step, TINY)
    step()
    new_means, new_scales = trained(step, TINY)

    means, scales = ([v.requires_grad_() for v in values] for values in (means, scales))
    loss_of(TINY, means, scales).backward()
    assert agreement(means, new_means) > 0.95
    # The averaged KL divergence of one library hardly pulls at the scales.
    assert (agreement(scales, new_scales) > 0.95) == (peer.package not in AVERAGED_KL)
    longest = max((a - b).abs().max().item() for a, b in zip(new_means, means, strict=True))
    assert longest == pytest.approx(LEARNING_RATE, rel=0.01)


def agreement(before: list[Tensor], after: list[Tensor]) -> float:
    """Share of the gradient, by size, whose elements have moved against it."""
    moved = torch.cat([(a - b).detach().flatten() for a, b in zip(after, before, strict=True)])
    gradient = torch.cat([value.grad.flatten() for value in before])
    against = moved.sign() == -gradient.sign()
    return (gradient.abs()[against].sum() / gradient.abs().sum()).item()


@each_bayesian_peer
def test_loss_falls_and_everything_moves(peer: Peer) -> None:
    step = installed(peer).make_step(TINY, 3)
    means, scales = trained(step, TINY)
    for _ in range(60):
        step()
    new_means, new_scales = trained(step, TINY)
    for before, after in zip([*means, *scales], [*new_means, *new_scales], strict=True):
        assert (before != after).all()
    assert step.loss is not None and step.loss.isfinite()
    assert loss_of(TINY, new_means, new_scales) < loss_of(TINY, means, scales) - 0.1


@each_bayesian_peer
def test_noise_is_new_in_every_step(peer: Peer) -> None:
    steps = [installed(peer).make_step(TINY, 2) for _ in range(2)]

    def losses(*seeds: int) -> list[float]:
        found = []
        for step, seed in zip(steps, seeds, strict=True):
            torch.manual_seed(seed)
            step()
            found.append(step.loss.item())
        return found

    first = losses(5, 5)
    assert first[0] == pytest.approx(first[1], rel=1e-6)
    second = losses(6, 7)
    assert second[0] != pytest.approx(second[1], rel=1e-6)


@each_bayesian_peer
def test_so_many_samples_are_averaged(peer: Peer) -> None:
    """The loss of 16 samples scatters around its expectation a quarter as much as that of one."""
    installed(peer)

    def scatter(num_samples: int) -> float:
        step = peer.make_step(TINY, num_samples)
        errors = []
        for seed in range(24):
            expected = loss_of(TINY, *trained(step, TINY))
            torch.manual_seed(seed)  # making a network has seeded, too
            step()
            errors.append((step.loss - expected).item())
        return torch.tensor(errors).std().item()

    assert 2 < scatter(1) / scatter(16) < 8


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # attention under vmap
@each_bayesian_peer
def test_transformer_trains(peer: Peer) -> None:
    step = installed(peer).make_step(TINY_VIT, 2)
    before = step.parameters()
    step()
    after = step.parameters()
    norms = {
        f"{prefix}.{name}"
        for prefix, module in TINY_VIT.net().named_modules()
        if isinstance(module, nn.LayerNorm)
        for name, _ in module.named_parameters()
    }
    deterministic = {name for name, (_, scale) in after.items() if scale is None}
    assert deterministic == (norms if peer.package in NORMS_LEFT_OUT else set())
    for name, (mean, scale) in after.items():
        assert not torch.equal(mean, before[name][0])
        assert scale is None or not torch.equal(scale, before[name][1])
    assert step.loss.isfinite()


def test_plain_passes_make_gradients_and_no_update() -> None:
    step = PEERS["plain"].make_step(TINY, 2)
    before = step.parameters()
    step()
    assert step.loss.item() == pytest.approx(
        cross_entropy(TINY.net()(TINY.batch()[0]), TINY.batch()[1]).item()
    )
    for name, (value, scale) in step.parameters().items():
        assert torch.equal(value, before[name][0])
        assert scale is None


@pytest.fixture(scope="module")
def pool() -> Iterator[spnb.WorkerPool]:
    with spnb.WorkerPool(2) as workers:
        yield workers


@pytest.mark.parametrize("peer", PARALLEL_PEERS.values(), ids=lambda peer: peer.name)
def test_ranks_share_the_samples_and_stay_together(
    peer: Peer, request: pytest.FixtureRequest
) -> None:
    installed(peer)
    pool = request.getfixturevalue("pool")

    def train() -> tuple[dict, list[float]]:
        step = peer.make_step(TINY, 4)
        losses = []
        for _ in range(60):
            step()
            losses.append(step.loss.item())
        return step.parameters(), losses

    (one, its_losses), (other, other_losses) = pool.run(train)
    for name, (mean, scale) in one.items():
        assert torch.equal(mean, other[name][0])
        assert torch.equal(scale, other[name][1])
    assert all(a != b for a, b in zip(its_losses, other_losses, strict=True))  # other noise
    assert its_losses[-1] < its_losses[0] - 0.1


@pytest.mark.parametrize("peer", PARALLEL_PEERS.values(), ids=lambda peer: peer.name)
def test_unequal_shares_are_refused(peer: Peer, request: pytest.FixtureRequest) -> None:
    installed(peer)
    pool = request.getfixturevalue("pool")
    with pytest.raises(Exception, match="2 ranks cannot share 3 samples"):
        pool.run(lambda: peer.make_step(TINY, 3))
