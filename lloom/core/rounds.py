"""Whose turn it is to be looked at again, however many strangers there are. It reads no clock.

Those who were well at the last look and all others take turns, for identities are free: what was seen of the former must not run
out while an endless number of new ones is looked at. Among the others the networks take turns, and within one the new ones come
first, then who waited longest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
        self._turn = 0
        # In which turn each network was the latest time.
        self._turns: dict[str, int] = {}

    def next(self, executors: Mapping[NodeId, str], now: float) -> NodeId | None:
        """Whose turn begins of `executors` (each with its network); None if nobody is due. Forgets all others."""
        for gone in self._due.keys() - executors.keys():
            del self._due[gone]
            self._failures.pop(gone, None)
        due = [each for each in executors if self._due.get(each, 0.0) <= now]
        if not due:
            return None
        well = [each for each in due if self._failures.get(each) == 0]
        others = [each for each in due if self._failures.get(each) != 0]
        self._turn += 1
        if well and (self._turn % 2 == 0 or not others):
            chosen = min(well, key=lambda each: (self._due[each], each))
        else:
            chosen = min(others, key=lambda each: (self._turns.get(executors[each], 0), self._due.get(each, 0.0), each))
            self._note(executors[chosen], executors)
        self._due[chosen] = math.inf
        return chosen

    def _note(self, network: str, executors: Mapping[NodeId, str]) -> None:
        """It is the turn of `network`; those of which nobody is left are forgotten."""
        left = set(executors.values())
        self._turns = {each: turn for each, turn in self._turns.items() if each in left} | {network: self._turn}

    def wait(self, now: float) -> float:
        """Seconds until somebody known is due."""
        return max(0.0, min(self._due.values(), default=now + self._pause) - now)

    def ended(self, executor: NodeId, well: bool, now: float) -> None:
        """Its turn is over; until then it is not due again."""
        self._failures[executor] = 0 if well else self._failures.get(executor, -1) + 1
        self._due[executor] = now + self._pause * 2 ** min(self._failures[executor], _MAX_DOUBLINGS)
