"""Admission to a backend: so many places, so much a minute, a bounded queue before them. It never looks at a request."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final

from lloom.core.errors import RetryElsewhere
from lloom.core.rates import Limits, Rates
from lloom.core.settings import ExecutorSettings

EXHAUSTED: Final = frozenset({"backend_busy", "backend_error"})
"""Failures of a backend after which it may want to be left alone: it says for how long."""
PAUSE_SECONDS: Final = 1.0
"""How long a backend rests that is at its limit and does not say until when."""


class Gate:
    """As many places as a backend has for one Worker, this Worker's share of its rates, and a bounded queue before both."""

    def __init__(
        self,
        limits: Limits,
        settings: ExecutorSettings,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._free = asyncio.Semaphore(limits.parallel)
        self._rates = Rates(limits, settings.workers, clock())
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._rested = -math.inf
        self._waiting = 0
        self.running = 0

    @property
    def counts_tokens(self) -> bool:
        """Whether `place` makes use of an estimate."""
        return self._rates.counts_tokens

    def place(self, tokens: int = 0) -> Visit:
        """A place for a request of about so many tokens, prompt and answer."""
        return Visit(self, tokens)

    async def enter(self, tokens: int) -> None:
        """Returns once there is a place. RetryElsewhere (429) if the queue is full or moves too slowly, or the backend's rates do
        not allow it soon.
        """
        now = self._clock()
        wait = max(self._rested - now, self._rates.wait(tokens, now), 0.0)
        if wait > self._settings.queue_seconds:
            raise busy("This executor's backend is at its rate limit.", wait)
        at_once = not wait and not self._free.locked()
        if not at_once and self._waiting >= self._settings.queue:
            raise busy("This executor is busy and its queue is full.", wait)
        self._rates.take(tokens, now)
        if at_once:
            await self._free.acquire()
        else:
            await self._queue(tokens, now + wait)
        self.running += 1

    def leave(self, tokens: int, spent: int | None, error: BaseException | None) -> None:
        """A place is free again, after `error`, if any. `spent`: what was taken of the tokens that it was entered with; None:
        nobody knows. A backend that says it is at its limit rests as long as it says: nobody is let in meanwhile.
        """
        if isinstance(error, RetryElsewhere):
            self._rest(error)
        self.running -= 1
        self._free.release()
        if spent is not None:
            self._rates.take(spent - tokens, self._clock(), requests=0)

    async def _queue(self, tokens: int, moment: float) -> None:
        """Waits for a place, and until then; what is reserved of the rates is given back if it is not had."""
        self._waiting += 1
        try:
            async with asyncio.timeout(self._settings.queue_seconds):  # wait_for can swallow a CANCEL
                await self._until(moment)
                await self._free.acquire()
        except BaseException as error:
            self._rates.take(-tokens, self._clock(), requests=-1)
            if isinstance(error, TimeoutError):
                raise busy("This executor stayed busy for too long.") from None
            raise
        finally:
            self._waiting -= 1

    async def _until(self, moment: float) -> None:
        while (wait := max(moment, self._rested) - self._clock()) > 0:
            await self._sleep(wait)

    def _rest(self, error: RetryElsewhere) -> None:
        wait = error.retry_after or (PAUSE_SECONDS if error.code == "backend_busy" else 0.0)
        if error.code in EXHAUSTED and wait:
            self._rested = max(self._rested, self._clock() + wait)


class Visit:
    """One request at a backend, from the beginning to the end of an `async with`. `spent`: tokens that it took; None as long as
    nobody knows.
    """

    __slots__ = ("_gate", "_tokens", "spent")

    def __init__(self, gate: Gate, tokens: int) -> None:
        self.spent: int | None = None
        self._gate = gate
        self._tokens = tokens

    async def __aenter__(self) -> Visit:
        await self._gate.enter(self._tokens)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gate.leave(self._tokens, self.spent, error)


def busy(message: str, wait: float = 0.0) -> RetryElsewhere:
    """A refusal that asks the client to come back (after `wait` seconds, but no sooner than in one), or to go elsewhere."""
    return RetryElsewhere(message, status=429, code="busy", retry_after=max(1.0, wait))
