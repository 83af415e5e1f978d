"""A client's money on one chain: ceilings, accepted receipts, what lies in the contract. It signs nothing and asks no executor.

What it answers is on the disk: a voucher that is signed below a ceiling is never above what a restarted client knows of.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from loguru import logger
from msgspec import Struct

from lloom.adapters.journal import payables
from lloom.adapters.journal.writer import Writer
from lloom.core.errors import LloomError
from lloom.core.identity import NodeId, checksum
from lloom.core.payment.events import Seen, Settled
from lloom.core.payment.funds import Funds, LaneFunds
from lloom.core.payment.payable import Judged, LaneEntry
from lloom.core.payment.promises import Ask, Raised
from lloom.core.settings import AccountingSettings


class Contract(Protocol):
    """What is needed of `lloom.adapters.chain.chain.Chain`."""

    async def funds(self, client: NodeId, token: bytes) -> Funds: ...
    async def lane(self, client: NodeId, executor: NodeId, token: bytes, number: int) -> LaneFunds: ...


class Purchasing(Struct, frozen=True):
    """What a client can spend: `available` in the contract (None: no server has told yet), of which `owing` is promised."""

    available: int | None
    owing: int


_MORE_MONEY: Final = frozenset({"no_funds", "chain_away"})
"""Refusals that may be over since the chain was asked last."""


class Payables:
    """The client's part of the actor of one chain. Its methods raise RetryElsewhere as `Writer.write` does."""

    def __init__(
        self,
        client: NodeId,
        token: bytes,
        writer: Writer,
        settings: AccountingSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.contract: Contract | None = None
        """Whom to ask what is paid in; None while the chain is not open."""
        self._client = client
        self._token = token
        self._writer = writer
        self._settings = settings
        self._clock = clock
        self._available: int | None = None
        self._settled: set[tuple[bytes, int]] = set()
        self._news = asyncio.Event()

    async def lane(self, executor: NodeId) -> LaneEntry | None:
        """The latest lane to `executor`, None if there is none."""
        return await self._writer.write(lambda db: payables.lane(db, executor, self._token), 1)

    async def adopt(self, executor: NodeId, entry: LaneEntry) -> LaneEntry:
        """Begins a lane where its executor proves that it stands, or a fresh one; one that is there stays as it is."""
        now = int(self._clock())
        adopted = await self._writer.write(lambda db: payables.adopt(db, executor, self._token, entry, now), 1)
        if adopted.ceiling:
            await self._learn_claimed(executor, adopted.number)
        return adopted

    async def raise_ceiling(self, ask: Ask) -> Raised:
        """The lane's ceiling from now on, or why it is not as high as it has to be."""
        if self._available is None:
            await self._look()
        raised = await self._raise(ask)
        if raised.code in _MORE_MONEY:
            await self._look()
            raised = await self._raise(ask)
        return raised

    async def keep(self, items: Sequence[Judged]) -> None:
        """Stores receipts with what was found of them; the same ones may come again."""
        now = int(self._clock())
        await self._writer.write(lambda db: payables.keep(db, self._token, items, now), len(items))

    def heard(self, events: Sequence[Seen]) -> None:
        """The contract tells something. What of it is about our money is looked up: an event may be taken back."""
        ours = [each.event for each in events if getattr(each.event, "client", None) == self._client]
        self._settled.update((event.executor, event.lane) for event in ours if isinstance(event, Settled))
        if ours:
            self._news.set()

    async def follow(self) -> None:
        """Looks up what was heard of, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self._look()
            while self._settled:
                executor, number = self._settled.pop()
                await self._learn_claimed(NodeId(executor), number)

    async def purchasing(self) -> Purchasing:
        """What can be spent, as the chain says now."""
        await self._look()
        now = int(self._clock())
        totals = await self._writer.write(lambda db: payables.totals(db, self._token, now), 1)
        return Purchasing(self._available, totals.owing)

    async def _raise(self, ask: Ask) -> Raised:
        now, available, settings = int(self._clock()), self._available, self._settings
        return await self._writer.write(
            lambda db: payables.raise_ceiling(db, self._token, ask, available, settings, now), 1
        )

    async def _look(self) -> None:
        """Asks the chain what is paid in; what was known stays if nobody answers."""
        if self.contract is None:
            return
        try:
            self._available = (await self.contract.funds(self._client, self._token)).available
        except LloomError as error:
            logger.debug("the chain does not say what is paid in: {}", error)

    async def _learn_claimed(self, executor: NodeId, number: int) -> None:
        """What was paid on a lane is not owed any more."""
        if self.contract is None:
            return
        try:
            claimed = (await self.contract.lane(self._client, executor, self._token, number)).claimed
            await self._writer.write(lambda db: payables.claimed(db, executor, self._token, number, claimed), 1)
        except LloomError as error:
            logger.debug("it is not known what {} was paid: {}", checksum(executor), error)
