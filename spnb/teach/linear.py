r"""A linear model with its exact posterior: what every network has to be compared with.

For a known noise :math:`\sigma` the posterior of the weights is normal, and the evidence has a
formula (Bishop, *Pattern Recognition and Machine Learning*, 2006, sections 3.3 and 3.5). Take the
inputs, with a column of ones, in units of the prior's widths, :math:`Z`; let :math:`e_j` and
:math:`u_j` be the eigenvalues and eigenvectors of :math:`Z^\top Z`, and
:math:`b_j = u_j^\top Z^\top y`. Then

.. math:: p(w \mid \sigma, y) = \prod_j \mathcal N\Big(u_j^\top w \,\Big|\,
          \frac{b_j}{e_j + \sigma^2}, \frac{\sigma^2}{e_j + \sigma^2}\Big)

.. math:: -2 \log p(y \mid \sigma) = N \log 2 \pi \sigma^2 + \frac{\mathrm{RSS}}{\sigma^2}
          + \sum_j \log\Big(1 + \frac{e_j}{\sigma^2}\Big)
          + \sum_j \frac{b_j^2}{e_j (e_j + \sigma^2)}

with the residual sum of squares of least squares, RSS. The noise has a prior as well; its posterior
is a curve over one number, and is put on a fine grid.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spnb.maths.models import BayesianModel
from spnb.maths.posteriors import Draws
from spnb.parallel.keyed import Key

RANGE = (-20.0, 10.0)
"""Of the logarithm of the noise."""
STEPS = 8
"""Of the grid, in 1/√(2N): about the width of that logarithm's posterior."""


def exact_linear(
    model: BayesianModel, data: tuple[Tensor, Tensor], num_draws: int = 1000, seed: int = 0
) -> Draws:
    """Independent draws from the exact posterior of a linear model.

    Args:
        model: its net is a `torch.nn.Linear` with one output, its weights have normal priors
            around zero, and its likelihood is a `spnb.likelihoods.Normal` whose scale has a prior.
        data: inputs ``[N, F]`` and targets ``[N, 1]``.
        num_draws: how many draws.
        seed: names them.

    Returns:
        The draws, each of all weights and the noise.
    """
    *weights, noise = (site.prior for site in model.drawn)
    widths = torch.cat([prior.stddev.double().flatten() for prior in weights if prior is not None])
    assert noise is not None
    x, y = (part.double() for part in data)
    z = torch.cat([x, torch.ones_like(x[:, :1])], 1) * widths
    bends, axes = torch.linalg.eigh(z.T @ z)
    bends = bends.clamp_min(1e-12 * bends.max())
    slopes = axes.T @ (z.T @ y.flatten())
    residual = (y.flatten() - z @ axes @ (slopes / bends)).square().sum()
    grid = math.ceil((RANGE[1] - RANGE[0]) * STEPS * math.sqrt(2 * len(x)))
    log_noise = torch.linspace(*RANGE, grid, dtype=torch.float64)
    found = log_evidence(len(x), residual, bends, slopes, log_noise) + noise.log_prob(log_noise)
    generator = Key(seed).generator()
    chosen = found.softmax(0).multinomial(num_draws, True, generator=generator)
    drawn = log_noise[chosen].unsqueeze(1)
    variance = (2 * drawn).exp()
    away = torch.randn(num_draws, len(bends), generator=generator, dtype=torch.float64)
    along = slopes / (bends + variance) + (variance / (bends + variance)).sqrt() * away
    return Draws(model, torch.cat([along @ axes.T * widths, drawn], 1)).eval()


def log_evidence(
    rows: int, residual: Tensor, bends: Tensor, slopes: Tensor, log_noise: Tensor
) -> Tensor:
    """Log-density of the targets for each noise, the weights integrated out, ``[G]``.

    Args:
        rows: N.
        residual: sum of the squares that least squares leaves.
        bends: eigenvalues of Z' Z, ``[P]``.
        slopes: Z' y along its eigenvectors, ``[P]``.
        log_noise: logarithms of the noise, ``[G]``.
    """
    variance = (2 * log_noise).exp().unsqueeze(1)
    volume = (bends / variance).log1p().sum(1)
    shrunk = (slopes.square() / (bends * (bends + variance))).sum(1)
    misfit = residual / variance.squeeze(1) + shrunk
    return -0.5 * (rows * (math.log(2 * math.pi) + 2 * log_noise) + misfit + volume)
