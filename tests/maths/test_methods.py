"""Every method against what is known of it: closed-form posteriors, divergences, moments."""

from __future__ import annotations

from collections.abc import Callable

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence

import spnb
from spnb.maths.models import BayesianModel
from tests.methods import METHODS

NOISE = 0.5
Make = Callable[[BayesianModel], spnb.Posterior]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def regression() -> tuple[BayesianModel, Tensor, Tensor]:
    """A linear model whose posterior has a formula, with correlated inputs."""
    torch.manual_seed(0)
    x = torch.randn(40, 3, dtype=torch.float64) @ torch.tensor(
        [[1.0, 0.8, 0.0], [0.0, 0.6, 0.5], [0.0, 0.0, 0.9]], dtype=torch.float64
    )
    y = x @ torch.tensor([[1.0], [-0.5], [0.3]], dtype=torch.float64)
    y = y + NOISE * torch.randn(40, 1, dtype=torch.float64)
    linear = nn.Linear(3, 1, bias=False).double()
    model = BayesianModel(linear, dist.Normal(0.0, 1.0), spnb.likelihoods.Normal(NOISE))
    return model, x, y


def exact(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the posterior of a linear model (Bishop 2006, eq. 3.53, 3.54)."""
    covariance = torch.linalg.inv(x.T @ x / NOISE**2 + torch.eye(3, dtype=torch.float64))
    return (covariance @ x.T @ y / NOISE**2).squeeze(1), covariance


def trained(posterior: spnb.Posterior, data: tuple[Tensor, Tensor], samples: int | None) -> object:
    return spnb.fit(
        posterior,
        data,
        num_samples=samples,
        batch_size=40,
        epochs=1500,
        samples_in_flight=samples or 1,  # a tiny net
        learning_rate=0.03,
        schedule="cosine",
    ).posterior


@pytest.mark.slow
def test_what_is_trained_as_a_point_ends_at_the_mode() -> None:
    model, x, y = regression()
    mode = exact(x, y)[0]
    found = trained(spnb.Point(model), (x, y), None)
    torch.testing.assert_close(found.loc, mode, rtol=0, atol=1e-6)
    found = trained(spnb.Ensemble(model, size=3), (x, y), None)
    torch.testing.assert_close(found.members, mode.expand(3, 3), rtol=0, atol=1e-6)
    wanders = spnb.fit(  # batches of 10 rows at a constant rate
        spnb.SWAG(model, iterates=50), (x, y), batch_size=10, epochs=300, learning_rate=0.01
    ).posterior
    mean, _, away = wanders.prepare()
    assert (mean - mode).norm() < 0.02 * mode.norm()
    assert 0 < away.norm() < 0.5  # a spread, but the optimiser's, not the posterior's


def test_laplace_is_exact_where_the_posterior_is_normal() -> None:
    model, x, y = regression()
    mean, covariance = exact(x, y)
    whole = trained(spnb.Laplace(model, "full"), (x, y), None)
    torch.testing.assert_close(whole.loc, mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(whole.root @ whole.root.T, covariance, rtol=1e-9, atol=0)
    diagonal = trained(spnb.Laplace(model), (x, y), None)
    precision = torch.linalg.inv(covariance).diagonal()
    torch.testing.assert_close(diagonal.root.square(), 1 / precision, rtol=1e-9, atol=0)
    draws = whole.draw(range(40_000), spnb.Key(1)).detach()
    assert (draws.T.cov() - covariance).norm() < 0.03 * covariance.norm()


@pytest.mark.parametrize("structure", ["full", "diagonal"])
def test_laplace_takes_the_temperature(structure: str) -> None:
    """The likelihood to the power of 1 / T, as in the ELBO; at zero the mode alone is left."""
    model, x, y = regression()
    prior = torch.eye(3).to(x)
    for heat in (0.25, 4.0):
        start = spnb.Laplace(model, structure)
        found = spnb.fit(start, (x, y), objective=spnb.ELBO(temperature=heat)).posterior
        wanted = x.T @ x / NOISE**2 / heat + prior
        if structure == "full":
            precision = torch.linalg.inv(found.root @ found.root.T)
        else:
            precision, wanted = found.root.square().reciprocal(), wanted.diagonal()
        torch.testing.assert_close(precision, wanted, rtol=1e-9, atol=1e-9)
    cold = spnb.fit(found, (x, y), objective=spnb.ELBO(temperature=0.0)).posterior
    assert torch.equal(cold.draw([3], spnb.Key(0))[0], cold.loc)


def test_laplace_refuses_what_it_cannot_do() -> None:
    model = BayesianModel(net(), dist.Normal(0.0, 1.5))
    with pytest.raises(ValueError, match="linearised='no' must be True, False or None"):
        spnb.Laplace(model, linearised="no")
    data = torch.randn(20, 3, dtype=torch.float64), torch.randint(0, 2, (20,))
    ice = spnb.ELBO(temperature=1e-300)
    with pytest.raises(FloatingPointError, match="temperature 1e-300 is too uneven"):
        spnb.fit(spnb.Laplace(model, "full"), data, objective=ice)


def test_laplace_predicts_linearised() -> None:
    """f + J (w - mode), against the whole Jacobian; the same as drawn where the net is linear."""
    model = BayesianModel(net(), dist.Normal(0.0, 1.5))
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.randint(0, 2, (20,))
    found = spnb.fit(spnb.Laplace(model, "full"), (x, y), epochs=20).posterior
    mode = found.loc.detach()

    def output(weights: Tensor) -> Tensor:
        return model.predict(weights.unsqueeze(0), weights[:0], x)[0]

    slopes = torch.autograd.functional.jacobian(output, mode)  # [N, C, P]
    weights = found.draw(range(5), spnb.Key(2).fold("predict"))
    wanted = output(mode) + torch.einsum("ncp,sp->snc", slopes, weights - mode)
    for at_once in (1, 3):
        drawn = spnb.predict(found, x, num_samples=5, seed=2, samples_in_flight=at_once)
        torch.testing.assert_close(drawn, wanted.detach(), rtol=0, atol=1e-12)
    found.linearised = False
    plain = spnb.predict(found, x, num_samples=5, seed=2)
    assert (plain - wanted).abs().max() > 0.01
    linear, x, y = regression()
    straight = spnb.fit(spnb.Laplace(linear, "full"), (x, y), epochs=5).posterior
    bent = spnb.fit(spnb.Laplace(linear, "full", linearised=False), (x, y), epochs=5).posterior
    torch.testing.assert_close(spnb.predict(straight, x), spnb.predict(bent, x))


def test_laplace_of_classes_is_the_hessian_where_the_net_is_linear() -> None:
    """Against autograd's Hessian of the whole loss; the last layer's is a block of the whole's."""
    torch.manual_seed(0)
    x = torch.randn(30, 4, dtype=torch.float64)
    y = torch.randint(0, 3, (30,))
    model = BayesianModel(nn.Linear(4, 3).double(), dist.Normal(0.0, 1.5))
    found = spnb.fit(spnb.Laplace(model, "full"), (x, y), epochs=50).posterior

    def loss(weights: Tensor) -> Tensor:
        logits = model.predict(weights.unsqueeze(0), weights[:0], x)[0]
        data = nn.functional.cross_entropy(logits, y, reduction="sum")
        return data + weights.square().sum() / (2 * 1.5**2)

    expected = torch.autograd.functional.hessian(loss, found.loc.detach())
    torch.testing.assert_close(torch.linalg.inv(found.root @ found.root.T), expected)
    deep = BayesianModel(net(), dist.Normal(0.0, 1.5))
    data = torch.randn(30, 3, dtype=torch.float64), torch.randint(0, 2, (30,))
    last, whole = (
        spnb.fit(spnb.Laplace(deep, "full", of), data, epochs=3).posterior for of in ("last", "all")
    )
    precision = torch.linalg.inv(whole.root @ whole.root.T)[-10:, -10:]
    torch.testing.assert_close(torch.linalg.inv(last.root @ last.root.T), precision)
    drawn = last.draw([0, 1], spnb.Key(0))
    assert torch.equal(drawn[:, :16], last.loc[:16].expand(2, -1)) and (drawn[0] != drawn[1]).any()


@pytest.mark.slow
def test_low_rank_finds_mean_and_whole_covariance() -> None:
    model, x, y = regression()
    mean, covariance = exact(x, y)
    start = spnb.LowRank(model, rank=2, init_scale=0.1, antithetic=True)
    found = trained(start, (x, y), 32)
    learned = torch.diag(found.scale.square()) + found.factor @ found.factor.T
    assert (found.loc - mean).norm() < 0.02 * mean.norm()
    assert (learned - covariance).norm() < 0.05 * covariance.norm()
    alone = trained(spnb.MeanField(model, init_scale=0.1, antithetic=True), (x, y), 32)
    independent = torch.diag(alone.scale.square())
    assert (independent - covariance).norm() > 0.4 * covariance.norm()  # it cannot


@pytest.mark.slow
def test_dropout_finds_the_best_of_its_family() -> None:
    """Left-out inputs act as a ridge of their own on each weight; the optimum has a formula."""
    model, x, y = regression()
    p = 0.2
    gram = x.T @ x / NOISE**2
    ridge = p / (1 - p) * gram.diagonal() + 1 / (1 - p)
    best = torch.linalg.solve(gram + torch.diag(ridge), x.T @ y / NOISE**2).squeeze(1)
    found = trained(spnb.MCDropout(model, rate={"weight": p}), (x, y), 64)
    torch.testing.assert_close(found.loc, best, rtol=0, atol=0.01)


@pytest.mark.parametrize("name", METHODS)
def test_a_sample_does_not_depend_on_its_company(name: str) -> None:
    posterior, key = METHODS[name](BayesianModel(net())), spnb.Key(7).fold("weights", 3)
    together = posterior.draw([0, 1, 2, 4], key)
    torch.testing.assert_close(together[3:], posterior.draw([4], key), rtol=0, atol=1e-15)
    torch.testing.assert_close(together[[2, 0]], posterior.draw([2, 0], key), rtol=0, atol=1e-15)
    others = posterior.draw([0, 1, 2, 4], spnb.Key(7).fold("weights", 4))
    fresh = posterior.draws_in_training is None
    assert torch.equal(together, others) == (not fresh)


@pytest.mark.parametrize("name", METHODS)
def test_the_parts_of_the_divergence_add_up(name: str) -> None:
    def rule(name: str, p: Tensor) -> dist.TorchDistribution:
        return spnb.priors.scale_mixture() if name == "0.weight" else dist.Normal(0.1, 0.7)

    for prior in (dist.Normal(0.1, 0.7), rule):
        if prior is rule and "Laplace" in name:
            continue
        posterior = METHODS[name](BayesianModel(net(), prior))
        prepared = posterior.prepare()
        whole = posterior.divergence(prepared)
        parts = sum(posterior.divergence(prepared, part, 3) for part in range(3))
        torch.testing.assert_close(parts, whole)
        assert posterior.estimates == (prior is rule)


@pytest.mark.parametrize("name", ["Point", "LowRank", "MCDropout"])
def test_the_divergence_is_the_mean_of_its_samples(name: str) -> None:
    """log q(w) - log p(w) over draws; q of a point and of masks is a constant left out."""
    posterior = METHODS[name](BayesianModel(net(), dist.Normal(0.1, 0.7)))
    weights = posterior.draw(range(20_000), spnb.Key(0)).detach()
    found = -dist.Normal(0.1, 0.7).log_prob(weights).sum(1)
    if isinstance(posterior, spnb.LowRank):
        found = found + as_normal(posterior).log_prob(weights)
    error = 5 * found.std() / len(found) ** 0.5 + 1e-6  # the prior's numbers are float32
    assert (found.mean() - posterior.divergence(posterior.prepare())).abs() < error


def as_normal(posterior: spnb.LowRank) -> MultivariateNormal:
    covariance = torch.diag(posterior.scale.square()) + posterior.factor @ posterior.factor.T
    return MultivariateNormal(posterior.loc.detach(), covariance.detach())


def test_the_low_rank_divergence_is_torchs() -> None:
    posterior = METHODS["LowRank"](BayesianModel(net(), dist.Normal(0.1, 0.7)))
    assert isinstance(posterior, spnb.LowRank)
    size = len(posterior.loc)
    prior = MultivariateNormal(
        torch.full((size,), 0.1).double(), 0.7**2 * torch.eye(size, dtype=torch.float64)
    )
    expected = kl_divergence(as_normal(posterior), prior)
    torch.testing.assert_close(posterior.divergence(posterior.prepare()), expected)


def test_low_rank_draws_have_its_moments() -> None:
    posterior = METHODS["LowRank"](BayesianModel(net()))
    assert isinstance(posterior, spnb.LowRank)
    draws = posterior.draw(range(40_000), spnb.Key(1)).detach()
    wanted = as_normal(posterior)
    torch.testing.assert_close(draws.mean(0), wanted.mean, rtol=0, atol=0.01)
    torch.testing.assert_close(draws.T.cov(), wanted.covariance_matrix, rtol=0, atol=0.002)
    usual = spnb.LowRank(BayesianModel(net()), antithetic=True)
    assert usual.factor.shape == (len(wanted.mean), 8)
    torch.testing.assert_close(usual.draw([0, 1], spnb.Key(1)).mean(0), wanted.mean)


def test_dropout_leaves_out_whole_input_units_of_all_layers_but_the_first() -> None:
    posterior = spnb.MCDropout(BayesianModel(net()), rate=0.3)
    assert posterior.rates == {"2.weight": 0.3}
    drawn = posterior.draw(range(3000), spnb.Key(2)).detach()
    values = BayesianModel.unflatten(drawn, posterior.model.drawn)
    assert torch.equal(values["0.weight"][0], posterior.model.net[0].weight.detach())
    factors = values["2.weight"] / posterior.model.net[2].weight.detach()  # [S, out, in]
    torch.testing.assert_close(factors[:, 0], factors[:, 1])  # a unit is there for all, or for none
    out = factors[:, 0] == 0
    torch.testing.assert_close(factors[:, 0][~out], torch.full_like(factors[:, 0][~out], 1 / 0.7))
    assert abs(out.double().mean().item() - 0.3) < 0.02
    together = out.double().T.corrcoef()
    assert (together - torch.eye(4)).abs().max() < 0.1  # units are left out independently


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: spnb.LowRank(m, rank=0), "rank=0 must be at least 1; rank 0 is"),
        (lambda m: spnb.LowRank(m, init_scale=0), "init_scale=0 must be positive"),
        (lambda m: spnb.MCDropout(m, rate=1.0), r"rate of '2.weight' is 1.0; it must be in \[0"),
        (lambda m: spnb.MCDropout(m, rate=0.0), "No unit would ever be left out"),
        (lambda m: spnb.Ensemble(m, size=0), "size=0 must be at least 1"),
        (lambda m: spnb.SWAG(m, iterates=1), "iterates=1 must be at least 2"),
        (lambda m: spnb.SWAG(m, start=1.0), "start=1.0 must be a share of the run"),
        (lambda m: spnb.Laplace(m, "block"), "structure='block' must be 'diagonal' or 'full'"),
        (lambda m: spnb.MCDropout(m, rate={"1.weight": 0.1}), r"\['1.weight'\] are no weights of"),
    ],
)
def test_bad_numbers_are_named(make: Make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(BayesianModel(net()))


@pytest.mark.parametrize(("method", "name"), [(spnb.LowRank, "rank"), (spnb.Ensemble, "size"),
                                              (spnb.SWAG, "iterates")])  # fmt: skip
def test_counts_are_whole_numbers(method: type, name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}=2.5 must be a whole number"):
        method(BayesianModel(net()), **{name: 2.5})


def test_a_point_has_one_sample() -> None:
    posterior = spnb.Point(BayesianModel(net()))
    x = torch.randn(5, 3, dtype=torch.float64)
    assert spnb.predict(posterior, x).shape == (1, 5, 2)
    with pytest.raises(ValueError, match="num_samples=8, but this Point has 1 different sample:"):
        spnb.predict(posterior, x, num_samples=8)
    with pytest.raises(ValueError, match="ask for at most that many"):
        spnb.fit(posterior, (x, torch.zeros(5).long()), num_samples=2)


def test_the_last_layer_takes_the_noise_along_where_it_has_a_prior() -> None:
    noise = spnb.likelihoods.Normal(dist.LogNormal(0.0, 1.0))
    posterior = spnb.Laplace(BayesianModel(net(), likelihood=noise), "full", "last")
    assert posterior.root.shape == (11, 11)  # 4 × 2 weights, 2 biases, and the noise
    whole = spnb.Laplace(BayesianModel(nn.Linear(3, 1), likelihood=noise), "full", "last")
    assert whole.root.shape == (5, 5)  # where there is one layer alone, it is the last


def test_laplace_of_learned_noise_is_the_fisher_information() -> None:
    """N / σ² for a mean and 2 N for the log of the noise, whatever the residuals."""
    net = nn.Linear(1, 1, bias=False).double()
    noise = spnb.likelihoods.Normal(dist.LogNormal(0.0, 1.0))
    model = BayesianModel(net, dist.Normal(0.0, 1.0), noise)
    x = torch.ones(30, 1, dtype=torch.float64)
    y = 3 + 2 * torch.randn(30, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = spnb.fit(spnb.Laplace(model), (x, y), epochs=3).posterior  # far from the mode
    scale = found.loc[1].exp()
    expected = torch.stack([30 / scale**2 + 1, torch.tensor(61.0)])
    torch.testing.assert_close(found.root.detach() ** -2, expected.detach())
