"""What may be done once only, remembered for as long as somebody could ask for it again. It reads no clock."""

from __future__ import annotations

from heapq import heappop, heappush


class Once:
    """At most `limit` things at a time; more are refused rather than the older forgotten."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._done: set[bytes] = set()
        self._ends: list[tuple[float, bytes]] = []

    def __len__(self) -> int:
        return len(self._done)

    def first(self, what: bytes, until: float, now: float) -> bool:
        """True if `what`, which nobody can ask for after `until`, was not done before, and may be done now."""
        while self._ends and self._ends[0][0] < now:
            self._done.discard(heappop(self._ends)[1])
        if what in self._done or len(self._done) >= self._limit:
            return False
        self._done.add(what)
        heappush(self._ends, (until, what))
        return True
