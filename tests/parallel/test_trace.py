"""Spans are recorded only when asked for."""

from __future__ import annotations

import time

import pytest

from spnb.parallel.trace import Trace


def test_off_records_nothing() -> None:
    trace = Trace()
    with trace.span("a"):
        pass
    assert trace.spans == []


def test_on_records_what_happened_and_when() -> None:
    trace = Trace(on=True)
    with trace.span("outer"):
        with trace.span("inner"):
            time.sleep(0.01)  # it lasts at least so long
        with pytest.raises(KeyError), trace.span("failed"):
            raise KeyError
    inner, failed, outer = trace.spans
    assert (inner.name, failed.name, outer.name) == ("inner", "failed", "outer")
    assert outer.start <= inner.start <= inner.stop <= failed.start <= outer.stop
    assert 0.01 <= inner.seconds <= outer.seconds
