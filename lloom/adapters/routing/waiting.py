"""Requests that wait while all executors of their models are busy. It chooses nobody: it asks again when something changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lloom.core.routing.candidate import Choice, Nobody
from lloom.core.routing.line import Line
from lloom.core.routing.outcomes import Place
from lloom.core.settings import RoutingSettings

Models = tuple[str, ...]
"""What a request may be sent to."""
Able = frozenset[tuple[Place, int]]
"""Who could take a request if they were well, and how many each takes at once."""

_PAUSE: Final = 0.05
"""Seconds between two looks that nothing but time gives cause for."""


@dataclass(frozen=True, slots=True, eq=False)
class Waiter:
    """A request whose turn has not come. `look` says who could take it now."""

    look: Callable[[], Choice | Nobody]
    found: asyncio.Future[Choice | Nobody]


class Waiting:
    """A line for each model, served when a place becomes free, a rest is over, or somebody joins."""

    def __init__(self) -> None:
        self._lines: dict[Models, Line[Waiter]] = {}
        self._timers: dict[Models, asyncio.TimerHandle] = {}
        self._handing: set[Models] = set()
        """Whose latest choice does not count as load yet, since its task has not run."""
        self.refused = 0
        """Requests so far that waited in vain, or for which there was no place."""

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def line(self, models: Models) -> bool:
        """Whether somebody waits for `models`: whoever comes now should, too."""
        return models in self._lines

    def changed(self, model: str) -> None:
        """A place of `model` may be free or well again."""
        for models in self._lines:
            if model in models:
                asyncio.get_running_loop().call_soon(self._serve, models)

    async def wait(
        self,
        models: Models,
        caller: str,
        able: Able,
        look: Callable[[], Choice | Nobody],
        settings: RoutingSettings,
        deadline: float,
    ) -> Choice | Nobody:
        """Who takes the request in the end; Nobody when the line is full, or `routing.queue_seconds` or the deadline is over.

        While `look` says of one that there is nobody, it is taken to say so of all who are as `able`, and not asked.
        """
        loop = asyncio.get_running_loop()
        waiter = Waiter(look, loop.create_future())
        line = self._lines.setdefault(models, Line(settings.queue))
        out = line.join(caller, waiter, able)
        if out is not None:
            self._send_away(out)
        loop.call_soon(self._serve, models)
        try:
            async with asyncio.timeout_at(min(loop.time() + settings.queue_seconds, deadline)):
                return await waiter.found
        except TimeoutError:
            self.refused += 1
            return look()
        finally:
            line.left(caller, waiter)
            self._forget(models)

    def _send_away(self, waiter: Waiter) -> None:
        self.refused += 1
        if not waiter.found.done():
            waiter.found.set_result(waiter.look())

    def _serve(self, models: Models) -> None:
        """Hands what is free to whose turn it is; one at a time, since only a request that is under way counts as load."""
        line = self._lines.get(models)
        if line is None or models in self._handing:
            return
        waits: list[float] = []
        for caller, waiter in line:
            found = waiter.look()
            if isinstance(found, Nobody) and found.soon:
                waits += [] if found.retry_after is None else [found.retry_after]
                continue
            line.served(caller, waiter)
            if not waiter.found.done():
                waiter.found.set_result(found)
            self._handing.add(models)
            asyncio.get_running_loop().call_soon(self._handed, models)  # once the waiter has run
            return
        self._again(models, min(waits, default=None))

    def _handed(self, models: Models) -> None:
        self._handing.discard(models)
        self._serve(models)

    def _again(self, models: Models, seconds: float | None) -> None:
        timer = self._timers.pop(models, None)
        if timer is not None:
            timer.cancel()
        if seconds is not None and models in self._lines:
            self._timers[models] = asyncio.get_running_loop().call_later(max(seconds, _PAUSE), self._serve, models)

    def _forget(self, models: Models) -> None:
        if not self._lines.get(models):
            self._lines.pop(models, None)
            self._again(models, None)
