"""Keeps every validator told of this executor's newest offer, for ever. It never decides what is offered."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from typing import Final

from loguru import logger

from lloom.adapters.anchors.inquiry import Whereabouts, told
from lloom.adapters.bridge import Connection
from lloom.adapters.routing.pool import Pool
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import RegisterCall

TELL_SECONDS: Final = 10.0
"""For telling one validator, the connection included."""
GOODBYE_SECONDS: Final = 2.0
"""For telling all of them goodbye: the offer expires by itself."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Between two tries of a validator that does not answer."""
LOOK_SECONDS: Final = 1.0
"""Pause between two looks at who the validators are: names get resolved, addresses learned."""


class Registrar:
    """`anchors()`: the validators that are known by now."""

    def __init__(self, anchors: Callable[[], Collection[Whereabouts]], pool: Pool) -> None:
        self._anchors = anchors
        self._pool = pool
        self._sealed = b""
        self._changed = asyncio.Event()

    def say(self, sealed: bytes) -> None:
        """From now on this sealed offer is the one to be told."""
        self._sealed = sealed
        self._changed.set()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """One task for each validator, as they become known."""
        telling: dict[NodeId, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                for validator, _ in self._anchors():
                    if validator not in telling:
                        telling[validator] = group.create_task(self._keep_told(validator))
                await asyncio.sleep(LOOK_SECONDS)

    async def goodbye(self, sealed: bytes) -> None:
        """Tells all of them `sealed`, an offer without models, as far as that can be done in a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await asyncio.gather(*(self._try(anchor, sealed) for anchor in self._anchors()))

    async def _keep_told(self, validator: NodeId) -> None:
        """Tells `validator` whenever there is news, and whenever the connection was lost: it may have forgotten everything."""
        pause = FIRST_PAUSE
        while True:
            changed, sealed = self._changed, self._sealed
            anchor = next((each for each in self._anchors() if each[0] == validator), None)
            connection = await self._try(anchor, sealed) if sealed and anchor is not None else None
            if connection is not None:
                pause = FIRST_PAUSE
                await _first(changed, connection.closed)
            elif sealed:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                await changed.wait()

    async def _try(self, anchor: Whereabouts, sealed: bytes) -> Connection | None:
        """The connection over which it was told; None if it was not."""
        try:
            await told(self._pool, anchor, RegisterCall(), TELL_SECONDS, sealed)
            return await self._pool.connection(*anchor)
        except RetryElsewhere as error:
            logger.debug("the validator {} could not be told what is offered: {}", checksum(anchor[0]), error)
            return None


async def _first(*events: asyncio.Event) -> None:
    """Returns once one of them is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
