"""A client's evidence about executors in the hands of its accounting actor. It judges nothing."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Final

from lloom.actors.place import Place, ledger_name
from lloom.adapters.routing.recollection import Recollection
from lloom.core.reputation.reputations import Reputations, Row

SECONDS: Final = 10.0


class _Ledger:
    def __init__(self, place: Place) -> None:
        self._place = place

    async def recall(self) -> list[Row]:
        found: list[Row] = await self._place.ask(ledger_name(""), "recall_evidence", seconds=SECONDS)
        return found

    async def keep(self, rows: list[Row]) -> None:
        await self._place.ask(ledger_name(""), "keep_evidence", rows, seconds=SECONDS)


def remembering(place: Place, stack: AsyncExitStack) -> Reputations:
    """What is held of executors, with what earlier runs of this node saw, soon; kept until `stack` closes. In a running loop."""
    reputations = Reputations(place.settings.routing.reputation_seconds)
    recollection = Recollection(reputations, _Ledger(place))
    work = asyncio.create_task(recollection.run(), name="recollection")

    async def close() -> None:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await recollection.close(SECONDS)

    stack.push_async_callback(close)
    return reputations
