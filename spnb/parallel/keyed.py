"""Keyed randomness: random numbers that belong to a meaning, never to a process.

The noise of weight sample s at step t is a function of ``(seed, t, s)`` alone. Whichever process
computes it gets the same numbers, so that every layout computes the same training run.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Key:
    """The name of a stream of random numbers.

    Names are hashed, so neighbouring seeds, steps or samples share nothing (adding them up, as in
    ``seed + step + rank``, would make neighbouring runs share their noise). torch's generator for
    the CPU is seeded with 32 of the 64 bits of the hash: among a million streams a few hundred
    pairs coincide, between steps far apart, which no estimate notices.

    Args:
        seed: the run's seed.
        path: names within the run, such as ``("weights", step, sample)``.
    """

    seed: int
    path: tuple[int | str, ...] = ()

    def fold(self, *names: int | str) -> Key:
        """The key of a stream within this one."""
        return Key(self.seed, (*self.path, *names))

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """A generator at the beginning of the stream, on a device.

        CPU and CUDA generate different numbers from the same key.
        """
        digest = hashlib.blake2b(repr((self.seed, *self.path)).encode(), digest_size=8).digest()
        return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)
