"""Admission to a backend: so many places, a bounded queue before them. It never looks at a request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from lloom.core.errors import RetryElsewhere
from lloom.core.settings import ExecutorSettings


class Gate:
    """As many places as a backend runs in parallel, and a bounded queue before them."""

    def __init__(self, places: int, settings: ExecutorSettings) -> None:
        self._free = asyncio.Semaphore(places)
        self._settings = settings
        self._waiting = 0
        self.running = 0

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Holds a place; RetryElsewhere (429) if the queue is full or moves too slowly."""
        await self._enter()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._free.release()

    async def _enter(self) -> None:
        if self._free.locked() and self._waiting >= self._settings.queue:
            raise busy("This executor is busy and its queue is full.")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._settings.queue_seconds):  # wait_for can swallow a CANCEL
                await self._free.acquire()
        except TimeoutError:
            raise busy("This executor stayed busy for too long.") from None
        finally:
            self._waiting -= 1


def busy(message: str) -> RetryElsewhere:
    """A refusal that asks the client to come back, or to go elsewhere."""
    return RetryElsewhere(message, status=429, code="busy", retry_after=1.0)
