"""Spans are recorded only when asked for."""

from __future__ import annotations

import itertools

import pytest

from spnb.parallel.trace import Trace


def test_off_records_nothing() -> None:
    trace = Trace()
    with trace.span("a"):
        pass
    assert trace.spans == []


def test_on_records_what_happened_and_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spnb.parallel.trace._now", itertools.count().__next__)
    trace = Trace(on=True)
    with trace.span("outer"):
        with trace.span("inner"):
            pass
        with pytest.raises(KeyError), trace.span("failed"):
            raise KeyError
    inner, failed, outer = trace.spans
    assert (inner.name, failed.name, outer.name) == ("inner", "failed", "outer")
    times = [outer.start, inner.start, inner.stop, failed.start, failed.stop, outer.stop]
    assert times == list(range(6))
    assert (inner.seconds, outer.seconds) == (1, 5)
