"""Predictions and scores, with the samples shared out over the ranks as in training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spnb.maths import scores
from spnb.maths.modules import check_forward
from spnb.maths.posteriors import Posterior
from spnb.parallel.arguments import whole
from spnb.parallel.collectives import Communicator
from spnb.parallel.keyed import Key
from spnb.parallel.layout import Layout
from spnb.run import inputs
from spnb.run.place import placed


def predict(
    posterior: Posterior,
    x: Any,
    *,
    num_samples: int | None = None,
    layout: Layout | None = None,
    seed: int = 0,
    batch_size: int = 1024,
    samples_in_flight: int = 1,
    gather: bool = True,
) -> Tensor | None:
    """Predictions of S samples of the weights.

    Sample s is a function of the seed and s alone: every layout returns the same draws, and the
    first 8 of 64 are those that 8 would have given.

    Args:
        posterior: the posterior, or what `spnb.fit` returned.
        x: inputs ``[N, ...]``.
        num_samples: S, over all ranks; None: 64, or all that the posterior has.
        layout: how the ranks share samples and rows; None: this process does all.
        seed: seed of the draws.
        batch_size: rows evaluated at once.
        samples_in_flight: samples evaluated at once.
        gather: whether this rank wants the result. Every rank of the layout must call; at least
            one asks, and where some do not, they get None.

    Returns:
        ``[S, N, ...]``, the parameters of the likelihood (logits; means; means and log-scales),
        on the device that computed it; None on a rank that does not ask.

    Raises:
        ValueError: a number is not positive, the posterior has fewer samples, x is empty or not
            finite, or the layout does not fit.
    """
    batch_size = whole("batch_size", batch_size)
    samples_in_flight = whole("samples_in_flight", samples_in_flight)
    seed = whole("seed", seed, None)
    posterior = inputs.posterior_of(posterior)
    num_samples = inputs.samples(posterior, num_samples, 64)
    posterior = placed(posterior)
    rows = inputs.inputs(x, posterior.model)
    posterior.model.refuse_changes()
    few = inputs.few_rows(rows).to(next(posterior.model.net.parameters()).device)
    check_forward(posterior.model.net, few)
    posterior.meet(few)
    comm = Communicator.join(layout)
    comm.layout.check_work(num_samples, len(rows))
    tile = comm.layout.tile(comm.rank, num_samples, len(rows))
    draws = _tile_draws(
        posterior,
        rows[tile.rows.start : tile.rows.stop],
        tile.samples,
        Key(seed).fold("predict"),
        batch_size,
        samples_in_flight,
    )
    draws = comm.gather(draws, "sample", 0, comm.layout.sizes("sample", num_samples))
    draws = comm.gather(draws, "rows", 1, comm.layout.sizes("rows", len(rows)))
    return draws if gather else None


def _tile_draws(
    posterior: Posterior, x: Tensor, samples: range, key: Key, batch_size: int, in_flight: int
) -> Tensor:
    """Predictions ``[C, n, ...]`` of one rank's samples on its rows."""
    device = next(posterior.parameters()).device
    with torch.no_grad():
        prepared = posterior.prepare()
        parts = []
        for start in range(0, len(samples), in_flight):
            weights = posterior.draw(samples[start : start + in_flight], key, prepared)
            batches = [
                posterior.evaluate(weights, batch.to(device)) for batch in x.split(batch_size)
            ]
            parts.append(torch.cat(batches, 1))
        return torch.cat(parts)


def score(
    posterior: Posterior,
    data: tuple[Any, Any],
    *,
    num_samples: int | None = None,
    layout: Layout | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Scores of the Bayesian model average over all samples of all ranks.

    Args:
        posterior: the posterior, or what `spnb.fit` returned.
        data: inputs ``[N, ...]`` and targets ``[N, ...]``.
        num_samples: S, over all ranks; None: 64, or all that the posterior has.
        layout: as for `predict`.
        seed: seed of the draws.

    Returns:
        For classes ``accuracy``, ``nll``, ``brier``, ``ece``; for real targets ``rmse``, ``nll``,
        ``ensemble_energy_score`` and, where the noise is normal, ``energy_score``, ``crps`` and
        ``coverage_90``, as `spnb.scores.regression` describes them; ``nll`` alone where no more is
        known of the likelihood. Over the targets that are not missing. The same on every rank.

    Raises:
        ValueError: the data do not fit the model, or as for `predict`.
    """
    posterior = inputs.posterior_of(posterior)
    x, y = inputs.data_set(posterior, data)
    _, y = try_scores(posterior, x, y)
    draws = predict(posterior, x, num_samples=num_samples, layout=layout, seed=seed)
    assert draws is not None
    likelihood, antithetic = posterior.model.likelihood, posterior.antithetic
    return scores.evaluate(draws, y.to(draws.device), likelihood, antithetic)


def try_scores(posterior: Posterior, x: Tensor, y: Tensor) -> tuple[dict[str, float], Tensor]:
    """Score a few rows, to see before a run that data and likelihood can be scored.

    Args:
        posterior: the posterior.
        x: inputs ``[N, ...]``.
        y: targets ``[N, ...]``.

    Returns:
        The scores, and all targets in the type and shape of the likelihood.

    Raises:
        ValueError: the data do not fit the model, or as for `spnb.scores.evaluate`.
    """
    predictions, y = inputs.probe(posterior, x, y)
    draws = predictions.expand(3, *predictions.shape[1:])
    rows = inputs.few_rows(y).to(predictions.device)
    return scores.evaluate(draws, rows, posterior.model.likelihood), y
