"""What all actors of a node share: a life that is one `serve()` call. It does none of their work."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import Coroutine
from typing import Any, Final

from loguru import logger

from lloom.actors.place import Place

RECURSION_LIMIT: Final = 1000
"""Python's own. py_ecc, which web3 brings, sets 100,000 when it is imported: then a deeply nested message of a stranger would
overflow the stack and end the process, where it is a RecursionError otherwise."""
JOIN_SECONDS: Final = 5.0
"""How long an actor's first word to the user waits for the network."""
GARBAGE: Final = 10_000
"""New objects after which Python looks for cycles: a request makes hundreds, and its own 700 took a few % of a busy CPU."""
NAP_SECONDS: Final = 30.0
"""Timers stand still while a machine sleeps: how late after that is noticed what the wall clock says."""


class Actor:
    """Base of the actors. Constructors only keep their arguments: Ray replays them after a crash.

    A subclass overrides `run()`: it builds everything from settings and disk, calls `self.up(summary)`, waits for
    `self.stopping`, and closes what it built.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.stopping = asyncio.Event()
        self._up = asyncio.Event()
        self._summary = ""
        self._work: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        """Ray's log prefix and dashboard show this."""
        return self.place.name

    async def serve(self) -> None:
        """The actor's whole life; returns after `stop()`. What it raises, the node's process judges."""
        sys.setrecursionlimit(RECURSION_LIMIT)
        self.place.open_log()
        if self.stopping.is_set():
            return
        self._work = asyncio.create_task(self.run(), name=self.place.name)
        try:
            await self._work
        except asyncio.CancelledError:
            if not self.stopping.is_set():
                raise
        finally:
            self._up.clear()
            logger.debug("{} has stopped", self.place.name)

    async def run(self) -> None:
        """The work itself."""
        raise NotImplementedError

    async def until_stopped(self, *works: Coroutine[Any, Any, None]) -> None:
        """Does `works`, none of which ends by itself, until the actor is asked to stop; raises what one of them raises."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
            await self.stopping.wait()
            for task in tasks:
                task.cancel()

    def up(self, summary: str) -> None:
        """Says that the actor does its work now; `summary` is one line for the user."""
        if not self._up.is_set():
            _settle_down()
            if self.place.restarted():
                logger.warning("was killed and is back: {}", summary)
        self._summary = summary
        self._up.set()

    async def ready(self) -> str:
        """Returns the summary once the actor does its work."""
        await self._up.wait()
        return self._summary

    async def stop(self) -> None:
        """Asks the actor to say goodbye, drain and end; `serve()` returns when that is done.

        One that is still starting is cancelled: what it waits for may have stopped before it.
        """
        self.stopping.set()
        if self._work is not None and not self._up.is_set():
            self._work.cancel()


def _settle_down() -> None:
    """What is there now stays: whoever looks for garbage later need not walk through all of Ray, which holds up requests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE)


async def patience(event: asyncio.Event, seconds: float) -> None:
    """Waits for `event`, but no longer than `seconds`: a node goes on before it is in the network."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def worn(began: float, lifetime: float) -> bool:
    """Whether what began then (Unix seconds) is to be renewed: half its lifetime is over, or the clock was set back."""
    return not 0 <= time.time() - began < lifetime / 2
