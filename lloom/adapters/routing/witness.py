"""Compares what validators say of executors with what becomes of requests. It chooses nobody itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final

from lloom.core.identity import NodeId
from lloom.core.reputation.hearsay import Word, heard
from lloom.core.reputation.reputations import Reputations
from lloom.core.trust import Trust
from lloom.core.vouch import Vouch

_MAX_EXECUTORS: Final = 4096


class Witness:
    """Keeps what was said of each executor. `validators()`: those that are configured."""

    def __init__(self, trust: Trust, reputations: Reputations, validators: Callable[[], Collection[object]]) -> None:
        self._trust = trust
        self._reputations = reputations
        self._validators = validators
        self._said: dict[NodeId, tuple[Vouch, ...]] = {}

    def told(self, executor: NodeId, vouches: tuple[Vouch, ...]) -> None:
        """This is what validators say of `executor` now."""
        self._said.pop(executor, None)
        while len(self._said) >= _MAX_EXECUTORS:
            del self._said[next(iter(self._said))]
        if vouches:
            self._said[executor] = vouches
        self._reputations.said(executor, self._expected(vouches))

    def experienced(self, executor: NodeId, answered: bool) -> None:
        """A request to `executor` was answered, or it was not there: who said so was right, who said the opposite was not."""
        vouches = self._said.pop(executor, None)  # each statement is judged once
        if vouches is None:
            return
        now = asyncio.get_running_loop().time()
        for said in vouches:
            if not said.tells:
                continue
            validator = NodeId(said.validator)
            if said.answers == answered:
                self._trust.held(validator, now)
            else:
                self._trust.misled(validator, now)

    def _expected(self, vouches: tuple[Vouch, ...]) -> float:
        now = asyncio.get_running_loop().time()
        words = [
            Word(self._trust.score(NodeId(said.validator), now), said.answers and not said.doubted)
            for said in vouches
            if said.tells and self._trust.trusted(NodeId(said.validator), now)
        ]
        return heard(words, len(self._validators()))
