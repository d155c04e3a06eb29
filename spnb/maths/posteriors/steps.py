"""Shares of a run, in whole steps: without rounding, which would lose or add one now and then."""

from __future__ import annotations

from fractions import Fraction


def fraction(share: float) -> Fraction:
    """The fraction that a number such as 0.1 or 2 / 3 is meant to be.

    The float itself is one next to it, and 160 steps times such a share can be 79.99999999999999.
    """
    return Fraction(share).limit_denominator(10**9)
