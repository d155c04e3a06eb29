"""What the last exercise check found, without its English."""

from __future__ import annotations

from spnb.teach import check


def found() -> str:
    """Name of the mistake that was found, else ``"right"`` or ``"open"`` (or ``"wrong"``)."""
    outcome = check.outcomes[-1]
    return outcome.mistake or outcome.state
