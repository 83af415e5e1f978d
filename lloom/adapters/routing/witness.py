"""Compares what validators say of executors with what becomes of requests. It chooses nobody itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final

from lloom.core.identity import NodeId
from lloom.core.routing.outcomes import Outcomes
from lloom.core.trust import Trust
from lloom.core.vouch import Vouch

AGREE: Final = 2
"""So many validators have to say the same before it counts, where there are so many: nobody rises or falls by one's word."""
PRAISED, BLAMED, UNKNOWN = 0.75, 0.25, 0.5
"""What is expected of an executor without experience of our own: weak either way."""
_MAX_EXECUTORS: Final = 4096


class Witness:
    """Keeps what was said of each executor. `validators()`: those that are configured."""

    def __init__(self, trust: Trust, outcomes: Outcomes, validators: Callable[[], Collection[object]]) -> None:
        self._trust = trust
        self._outcomes = outcomes
        self._validators = validators
        self._said: dict[NodeId, tuple[Vouch, ...]] = {}

    def told(self, executor: NodeId, vouches: tuple[Vouch, ...]) -> None:
        """This is what validators say of `executor` now."""
        self._said.pop(executor, None)
        while len(self._said) >= _MAX_EXECUTORS:
            del self._said[next(iter(self._said))]
        if vouches:
            self._said[executor] = vouches
        self._outcomes.reputed(executor, self._expected(vouches))

    def experienced(self, executor: NodeId, answered: bool) -> None:
        """A request to `executor` was answered, or it was not there: who said so was right, who said the opposite was not."""
        now = asyncio.get_running_loop().time()
        for said in self._said.pop(executor, ()):  # each statement is judged once
            if not said.tells:
                continue
            validator = NodeId(said.validator)
            if said.answers == answered:
                self._trust.held(validator, now)
            else:
                self._trust.misled(validator, now)

    def _expected(self, vouches: tuple[Vouch, ...]) -> float:
        now = asyncio.get_running_loop().time()
        believed = [said for said in vouches if said.tells and self._trust.trusted(NodeId(said.validator), now)]
        needed = min(AGREE, max(1, len(self._validators())))
        good = sum(said.answers and not said.doubted for said in believed)
        if good >= needed and good > len(believed) / 2:
            return PRAISED
        return BLAMED if len(believed) - good >= needed else UNKNOWN
