"""What one actor has for another, in batches, kept until it is taken. It never blocks whoever puts something in."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from loguru import logger

from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.settings import AccountingSettings

T = TypeVar("T")

RETRY_SECONDS: Final = 0.5
"""An actor that was killed is back within 1.4 to 2.7 s."""
CLOSE_SECONDS: Final = 10.0


class Outbox(Generic[T]):
    """Hands items to `deliver` in batches, each again and again until it does not raise RetryElsewhere.

    So `deliver` must bear to get the same items twice. Beyond the backlog of the settings new items are dropped, and that is
    logged. What `deliver` raises besides loses the batch, PeerFault included: the same items would fail for ever.
    """

    def __init__(self, what: str, deliver: Callable[[list[T]], Awaitable[None]], settings: AccountingSettings) -> None:
        self._what = what
        self._deliver = deliver
        self._settings = settings
        self._items: deque[T] = deque()
        self._some = asyncio.Event()
        """Whether there is anything to do."""
        self._enough = asyncio.Event()
        """Whether nothing is to wait for company."""
        self._closing = False
        self._in_hand = 0
        self._work = asyncio.create_task(self._run(), name=what)

    def put(self, item: T) -> None:
        """Queues `item`."""
        if len(self._items) >= self._settings.backlog:
            logger.error("{}: dropped one, for {} wait already", self._what, len(self._items))
            return
        self._items.append(item)
        self._signal()

    async def close(self) -> None:
        """Waits until everything is delivered, at most CLOSE_SECONDS."""
        self._closing = True
        self._signal()
        try:
            _, late = await asyncio.wait((self._work,), timeout=CLOSE_SECONDS)
            if late:
                left = len(self._items) + self._in_hand
                logger.error("{}: {} were not delivered before the end", self._what, left)
        finally:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    async def _run(self) -> None:
        while batch := await self._gather():
            self._in_hand = len(batch)
            await self._insist(batch)
            self._in_hand = 0

    async def _gather(self) -> list[T]:
        """The next items; none, if nothing comes any more."""
        await self._some.wait()
        # A call of another actor costs both processes milliseconds, whether it carries one item or a hundred.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.report_seconds):
                await self._enough.wait()
        batch = [self._items.popleft() for _ in range(min(self._settings.batch, len(self._items)))]
        self._some.clear()
        self._enough.clear()
        self._signal()
        return batch

    def _signal(self) -> None:
        """Sets the events as the items that wait are."""
        if self._items or self._closing:
            self._some.set()
        if len(self._items) >= self._settings.batch or self._closing:
            self._enough.set()

    async def _insist(self, batch: list[T]) -> None:
        while True:
            try:
                return await self._deliver(batch)
            except Exception as error:  # noqa: BLE001 - the boundary of this task: the next batch may be well
                if not isinstance(error, RetryElsewhere) or isinstance(error, PeerFault):
                    logger.exception("{}: a batch of {} was lost", self._what, len(batch))
                    return None
                logger.debug("{}: {}; trying again", self._what, error)
                await asyncio.sleep(RETRY_SECONDS)
