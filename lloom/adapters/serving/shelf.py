"""The slices that a till has at hand. It decides nothing but how many that may be."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from lloom.adapters.serving.slices import Slice
from lloom.core.billing.lane import Lane
from lloom.core.errors import RetryElsewhere

MAX_SLICES: Final = 20_000
"""Lanes at hand, about 1 kB each."""
MAX_LANES: Final = 8
"""Of one client: one for each process of its that pays."""
IDLE_SECONDS: Final = 60.0
"""A lane that nobody used for so long is given back."""


class Shelf:
    """Slices by their lanes."""

    def __init__(self) -> None:
        self.slices: dict[Lane, Slice] = {}
        self._lanes: Counter[bytes] = Counter()
        self._loop = asyncio.get_running_loop()

    def take(self, lane: Lane) -> Slice:
        """The slice of a lane that is used now, maybe a new one. RetryElsewhere (429) if there are too many."""
        found = self.slices.get(lane)
        if found is None:
            if len(self.slices) >= MAX_SLICES or self._lanes[lane.client] >= MAX_LANES:
                raise RetryElsewhere(
                    "Too many lanes are in use here.", status=429, code="too_many_lanes", retry_after=IDLE_SECONDS
                )
            found = self.slices[lane] = Slice(lane, self._loop.time())
            self._lanes[lane.client] += 1
        found.used_at = self._loop.time()
        return found

    def forget(self, slice_: Slice) -> None:
        """Nothing of it is in use."""
        client = slice_.lane.client
        if self.slices.pop(slice_.lane, None) is None:
            return
        self._lanes[client] -= 1
        if not self._lanes[client]:
            del self._lanes[client]

    def idle(self, before: float) -> list[Slice]:
        """Those that were not used since then."""
        return [each for each in self.slices.values() if each.idle and each.used_at <= before]
