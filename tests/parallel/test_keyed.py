"""Keyed randomness: the same name gives the same numbers, another name others."""

from __future__ import annotations

import itertools

import torch

from spnb.parallel.keyed import Key


def numbers(key: Key) -> torch.Tensor:
    return torch.randn(8, generator=key.generator())


def test_a_name_is_a_stream() -> None:
    assert torch.equal(numbers(Key(3).fold("weights", 1, 2)), numbers(Key(3, ("weights", 1, 2))))
    assert torch.equal(numbers(Key(3).fold(1).fold(2)), numbers(Key(3).fold(1, 2)))


def test_neighbours_share_nothing() -> None:
    """With seeds added up, (seed 0, step 1) would be (seed 1, step 0)."""
    keys = [
        Key(seed).fold("weights", step, s)
        for seed, step, s in itertools.product(range(5), range(5), range(5))
    ]
    first = {float(numbers(key)[0]) for key in keys}
    assert len(first) == 125


def test_streams_look_independent() -> None:
    draws = torch.stack(
        [torch.randn(2000, generator=Key(0).fold(s).generator()) for s in range(50)]
    )
    correlations = torch.corrcoef(draws) - torch.eye(50)
    assert correlations.abs().max() < 5 / 2000**0.5


def test_the_global_stream_is_left_alone() -> None:
    before = torch.get_rng_state()
    numbers(Key(0))
    assert torch.equal(before, torch.get_rng_state())
