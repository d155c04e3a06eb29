r"""Standard normal noise that belongs to sample indices.

With *antithetic* noise the samples come in pairs, :math:`\varepsilon_{2k+1} = -\varepsilon_{2k}`
(Kroese, Taimre and Botev, *Handbook of Monte Carlo Methods*, 2011, section 9.2). Each sample by
itself is distributed as before, so every mean over samples is still unbiased. What is odd in the
noise cancels within a pair: gradients scatter less as long as the posterior is so narrow that the
loss bends little across it. And only half of the noise has to be drawn, which is a large part of
the cost of a sample.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from spnb.maths.posteriors.drawing import Key
from spnb.maths.posteriors.pieces import Window


def owner(sample: int, antithetic: bool) -> tuple[int, float]:
    """Whose noise a sample has, and with which sign.

    Args:
        sample: index of the sample.
        antithetic: whether samples 2k and 2k + 1 share their noise.
    """
    if not antithetic:
        return sample, 1.0
    pair, is_second = divmod(sample, 2)
    return pair, -1.0 if is_second else 1.0


def fill(vector: Tensor, index: int, key: Key, window: Window | None = None) -> None:
    """Write the noise of one index into a vector ``[P]``, or that of some weights of it.

    The noise of the whole is drawn in any case: a generator cannot begin in the middle.
    """
    whole = vector if window is None else vector.new_empty(window.whole)
    whole.normal_(generator=key.fold(index).generator(vector.device))
    if window is not None:
        vector.copy_(window.of(whole))


def draw(
    sample_ids: Sequence[int],
    key: Key,
    like: Tensor,
    antithetic: bool,
    window: Window | None = None,
) -> Tensor:
    """Noise of some samples.

    Args:
        sample_ids: indices s of the samples.
        key: key of the step.
        like: a vector ``[P]`` that gives size, precision and device.
        antithetic: whether samples 2k and 2k + 1 share their noise.
        window: which weights of a larger vector these are; None: all.

    Returns:
        ``[C, P]``, a new tensor each time: the backward pass needs the noise again.
    """
    noise = like.new_empty(len(sample_ids), like.shape[0])
    for row, sample in zip(noise, sample_ids, strict=True):
        index, sign = owner(sample, antithetic)
        fill(row, index, key, window)
        if sign < 0:
            row.neg_()
    return noise
