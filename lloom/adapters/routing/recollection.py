"""Carries evidence over restarts: reads what was kept, then has what changes kept, behind the requests. It judges nothing.

Evidence adds up in any order, so requests do not wait for what is read. Nothing is written before that was read: totals replace
each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final, Protocol

from loguru import logger
from msgspec.structs import replace

from lloom.core.errors import RetryElsewhere
from lloom.core.reputation.reputations import Reputations, Row

KEEP_SECONDS: Final = 5.0
"""How long changes wait for others: as much is lost by `kill -9`."""
RETRY_SECONDS: Final = 0.5


class Store(Protocol):
    """Where totals are kept, at Unix times. RetryElsewhere while it is away."""

    async def recall(self) -> list[Row]: ...
    async def keep(self, rows: list[Row]) -> None: ...


class Recollection:
    """`run` until it is cancelled, then `close`. `clock`: Unix seconds."""

    def __init__(self, reputations: Reputations, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._reputations = reputations
        self._store = store
        self._clock = clock
        self._recalled = False

    async def run(self) -> None:
        """Reads, then writes for ever."""
        while not self._recalled:
            try:
                await self.recall()
            except RetryElsewhere as error:
                logger.debug("what is known of executors cannot be read yet: {}", error)
                await asyncio.sleep(RETRY_SECONDS)
            except Exception:  # noqa: BLE001 - the boundary of a task: nobody waits for it
                logger.exception("what is known of executors cannot be read, so nothing is kept either")
                return
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            await self.keep()

    async def recall(self) -> None:
        """Adds what earlier runs saw. RetryElsewhere as `Store`."""
        rows = await self._store.recall()
        now = asyncio.get_running_loop().time()  # what a clock that was set back since put into the future is of now
        self._reputations.recall(
            row._replace(known=replace(row.known, at=min(row.known.at - self._ahead(), now))) for row in rows
        )
        self._recalled = True

    async def keep(self) -> None:
        """Has what changed since the last time kept; later, if that cannot be now."""
        rows = self._reputations.changed() if self._recalled else []
        if not rows:
            return
        try:
            ahead = self._ahead()
            await self._store.keep([row._replace(known=replace(row.known, at=row.known.at + ahead)) for row in rows])
        except RetryElsewhere as error:
            logger.debug("what is known of executors cannot be kept yet: {}", error)
            self._reputations.keep_again(rows)
        except asyncio.CancelledError:
            self._reputations.keep_again(rows)
            raise
        except Exception:  # noqa: BLE001 - the boundary of a task: the next rows may be well
            logger.exception("what changed about {} executors was not kept", len(rows))

    async def close(self, seconds: float) -> None:
        """Has the last changes kept, within `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.keep()

    def _ahead(self) -> float:
        """Of the loop's clock, which starts anew with the machine."""
        return self._clock() - asyncio.get_running_loop().time()
