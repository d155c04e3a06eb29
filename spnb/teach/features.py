r"""A network whose hidden layer stands still: Bayesian regression with a posterior in closed form.

K units :math:`\varphi_k(x) = \tanh(a_k x + b_k)` are drawn once; only the weights of the last layer
are uncertain. With a normal prior of variance :math:`\tau^2 / K` and normal noise of variance
:math:`\sigma^2` the posterior is normal, with precision and mean

.. math:: A = \Phi^\top \Phi / \sigma^2 + K / \tau^2, \qquad m = A^{-1} \Phi^\top y / \sigma^2

(Bishop, *Pattern Recognition and Machine Learning*, eq. 3.50 f.). The mean-field posterior, the
product of normals that minimises KL(q || p), has the same mean and the variances
:math:`1 / A_{kk}` (eq. 10.15 there): never more than the true ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spnb.maths.posteriors.noise import draw as noise_of
from spnb.parallel.keyed import Key

Method = Literal["prior", "mean field", "exact"]
METHODS: tuple[Method, ...] = ("prior", "mean field", "exact")


@dataclass(frozen=True)
class Features:
    """The hidden layer.

    Attributes:
        slopes: ``[K]``.
        offsets: ``[K]``.
    """

    slopes: Tensor
    offsets: Tensor

    @classmethod
    def drawn(cls, units: int = 80, reach: float = 4.0, seed: int = 0) -> Features:
        """Units whose bends lie anywhere within the reach, with slopes of a few.

        Args:
            units: K.
            reach: where the bends lie, from minus this to this.
            seed: names the draw.
        """
        generator = Key(seed).fold("features").generator()
        slopes = torch.randn(units, generator=generator, dtype=torch.float64) * 1.5
        bends = torch.rand(units, generator=generator, dtype=torch.float64) * 2 * reach - reach
        return cls(slopes, -slopes * bends)

    def __call__(self, x: Tensor) -> Tensor:
        """Features ``[N, K]`` of inputs ``[N]``."""
        return torch.tanh(x.double().unsqueeze(1) * self.slopes + self.offsets)


def draw_weights(
    features: Features,
    x: Tensor,
    y: Tensor,
    *,
    method: Method,
    prior_scale: float,
    noise: float,
    num_samples: int,
    seed: int = 0,
) -> Tensor:
    """Draws of the last layer's weights, ``[S, K]``; the first ones are the same for every S.

    Args:
        features: the hidden layer.
        x: inputs ``[N]``; there may be none.
        y: targets ``[N]``.
        method: from the prior, the posterior, or its mean-field approximation.
        prior_scale: standard deviation of the function that the prior allows, about.
        noise: standard deviation of the targets around the function.
        num_samples: S.
        seed: names the draws' noise, which is the same for all methods and data.
    """
    units = len(features.slopes)
    key, like = Key(seed).fold("weights"), torch.empty(units, dtype=torch.float64)
    eps = noise_of(range(num_samples), key, like, False)
    width = prior_scale / units**0.5
    if method == "prior":
        return width * eps
    phi = features(x)
    precision = phi.T @ phi / noise**2 + torch.eye(units, dtype=torch.float64) / width**2
    root = torch.linalg.cholesky(precision)
    mean = torch.cholesky_solve((phi.T @ y.double() / noise**2).unsqueeze(1), root).squeeze(1)
    if method == "mean field":
        return mean + eps / precision.diagonal().sqrt()
    return mean + torch.linalg.solve_triangular(root.T, eps.T, upper=True).T
