"""Whose turn it is to be looked at again: the new ones first, then who waited longest. It reads no clock."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final

from lloom.core.identity import NodeId

_MAX_DOUBLINGS: Final = 3
"""Who fails is looked at less and less often, down to an eighth."""


class Rounds:
    """A turn every `pause` seconds for each executor; longer pauses for those that fail."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._due: dict[NodeId, float] = {}
        self._failures: dict[NodeId, int] = {}

    def next(self, executors: Collection[NodeId], now: float) -> NodeId | None:
        """Who of `executors` is due, None if nobody is. Forgets all others."""
        known = set(executors)
        for gone in self._due.keys() - known:
            del self._due[gone]
            self._failures.pop(gone, None)
        first = min(known, key=lambda each: (self._due.get(each, 0.0), each), default=None)
        return first if first is not None and self._due.get(first, 0.0) <= now else None

    def wait(self, now: float) -> float:
        """Seconds until somebody known is due."""
        return max(0.0, min(self._due.values(), default=now + self._pause) - now)

    def began(self, executor: NodeId) -> None:
        """`executor` has its turn now; it is not due again before that ended."""
        self._due[executor] = math.inf

    def ended(self, executor: NodeId, well: bool, now: float) -> None:
        """Its turn is over."""
        self._failures[executor] = 0 if well else self._failures.get(executor, -1) + 1
        self._due[executor] = now + self._pause * 2 ** min(self._failures[executor], _MAX_DOUBLINGS)
