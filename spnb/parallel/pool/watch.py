"""Who looks on while a pool runs a function: the worker panel, for one."""

from __future__ import annotations

import contextlib
import inspect
import time
import weakref
from collections.abc import Callable
from typing import Any

from spnb.parallel.progress import Report

LOOK_EVERY = 0.25
"""Seconds between two looks."""


class Watchers:
    """Methods that are called while a function runs, some times a second, and at its end.

    Attributes:
        reports: What each rank last told of its progress, in this run or the last.
    """

    def __init__(self) -> None:
        self.reports: dict[int, Report] = {}
        self._methods: list[weakref.WeakMethod[Callable[[], Any]]] = []
        self._called_at = 0.0

    def add(self, method: Callable[[], Any]) -> None:
        """Take in a method; its object is not kept alive by this."""
        if not inspect.ismethod(method):
            raise TypeError(
                f"pool.watch takes a method of an object, which it is called for as long as there "
                f"is that object; {method!r} is none."
            )
        self._methods.append(weakref.WeakMethod(method))

    def see(self, reports: dict[int, Report]) -> None:
        """Take the reports, and call all methods unless they have just been called."""
        self.reports = reports
        if time.monotonic() - self._called_at >= LOOK_EVERY:
            self.call()

    def call(self) -> None:
        """Call all methods of objects that are still there."""
        self._called_at = time.monotonic()
        alive = [(reference, reference()) for reference in self._methods]
        self._methods = [reference for reference, method in alive if method is not None]
        for _, method in alive:
            if method is not None:
                with contextlib.suppress(Exception):  # a run is not lost because of who looks on
                    method()
