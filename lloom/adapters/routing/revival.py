"""Finds out behind the requests whether executors that were silent are back. It makes nobody wait, and no request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from lloom.adapters.routing.pool import Pool
from lloom.core.errors import RetryElsewhere
from lloom.core.routing.breaker import State
from lloom.core.routing.candidate import Candidate
from lloom.core.routing.outcomes import Failure, Outcomes, Place

AT_ONCE: Final = 4
"""Dials that may be under way: they are a courtesy."""


class Revival:
    """Dials whoever fell silent, once its rest is over; until it answers, requests go to others."""

    def __init__(self, pool: Pool, outcomes: Outcomes) -> None:
        self._pool = pool
        self._outcomes = outcomes
        self._dials: dict[Place, asyncio.Task[None]] = {}

    def look(self, candidates: Iterable[Candidate]) -> None:
        """Those of `candidates` that may be back are dialled in the background."""
        if not self._outcomes.silent:  # as nearly always
            return
        now = asyncio.get_running_loop().time()
        for candidate in candidates:
            if len(self._dials) >= AT_ONCE:
                return
            if self._outcomes.state(candidate.place, now) is State.HALF_OPEN and candidate.place not in self._dials:
                self._dials[candidate.place] = asyncio.create_task(self._dial(candidate))

    async def close(self) -> None:
        """Gives up."""
        dials = list(self._dials.values())
        for dial in dials:
            dial.cancel()
        await asyncio.gather(*dials, return_exceptions=True)

    async def _dial(self, candidate: Candidate) -> None:
        loop = asyncio.get_running_loop()
        try:
            await self._pool.connection(candidate.executor, candidate.endpoint)
            self._outcomes.recovered(candidate.place, loop.time())
        except RetryElsewhere:
            self._outcomes.failed(candidate.place, loop.time(), Failure.SILENT, None)
        finally:
            del self._dials[candidate.place]
