"""The executor's part of an accounting actor, which Workers ask over Ray. It only hands on (adapters/payment)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from lloom.actors.base import Actor
from lloom.actors.place import worker_name
from lloom.adapters.journal import lanes
from lloom.adapters.journal.writer import Writer
from lloom.adapters.payment.receivables import Receivables
from lloom.adapters.payment.settling import Settling
from lloom.adapters.payment.treasury import Treasury
from lloom.core.billing.lane import Lane
from lloom.core.billing.receipt import Draft, Receipt
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity, NodeId
from lloom.core.messages import LaneCall, LaneState, SignedReceipt
from lloom.core.parcel import Issued
from lloom.core.payment.domain import active, token_of
from lloom.core.payment.receivable import Ask, Grant, Holder

RECALL_SECONDS: Final = 2.0
"""A Worker that does not give back within this time is being restarted, or too busy."""


class Earning(Actor):
    """Answers once `earning` is at work; RetryElsewhere until then, and while the journal is away."""

    _receivables: Receivables | None = None
    _settling: Settling | None = None

    def earning(
        self, chain: str, identity: Identity, writer: Writer, sign: Callable[[Receipt], SignedReceipt]
    ) -> Sequence[Coroutine[Any, Any, None]]:
        """What is to be done, beside running `writer`, for an executor that is paid on `chain` (empty: it is not)."""
        if self.place.settings.role != "executor" or chain not in active(self.place.settings):
            return ()
        return (self._earn(chain, identity, writer, sign),)

    async def enlist(self, holder: Holder) -> None:
        """As `Receivables.enlist`."""
        await self._earnings().enlist(holder)

    async def lend(self, holder: Holder, asks: list[Ask]) -> list[Grant]:
        """As `Receivables.lend`."""
        return await self._earnings().lend(holder, asks)

    async def charge(self, holder: Holder, drafts: list[Draft]) -> Issued:
        """As `Receivables.issue`."""
        return Issued(await self._earnings().issue(holder, drafts))

    async def lane(self, client: NodeId, call: LaneCall) -> LaneState:
        """As `Receivables.lane`."""
        return await self._earnings().lane(client, call)

    async def redeem(self) -> list[int]:
        """Redeems at once all that is worth its gas; the numbers of the settlements."""
        self._earnings()
        assert self._settling is not None
        return await self._settling.look(time.time(), everything=True)

    async def _earn(
        self, chain: str, identity: Identity, writer: Writer, sign: Callable[[Receipt], SignedReceipt]
    ) -> None:
        """Opens the chain, follows it, and redeems what is due."""
        from lloom.adapters.chain.chain import Chain  # web3 takes a second and 60 MB: who is not paid does without
        from lloom.adapters.chain.rpc import urls

        settings = self.place.settings
        each, limits = settings.chain[chain], settings.accounting
        names = [worker_name(number) for number in range(settings.executor.workers)]
        await writer.write(lambda db: lanes.dismiss(db, names), 1)
        bank = await Chain.open(chain, each, identity, writer, urls(each, self.place.provider_keys()))
        try:
            token = token_of(each)
            treasury = Treasury(bank, identity.address, token, limits.settlement, each)

            async def recall(holder: Holder, wanted: list[Lane]) -> list[Ask]:
                return await self._recall(chain, holder, wanted)

            books = self._receivables = Receivables(writer, treasury, sign, limits.credit_limit, recall)
            self._settling = Settling(bank, treasury, writer, identity.address, token, books.take_back)
            bank.on_events = self._settling.on_events
            self.up(f"takes vouchers on {chain}")
            async with asyncio.TaskGroup() as group:
                group.create_task(bank.run())
                group.create_task(self._settling.run())
        finally:
            self._receivables = self._settling = None
            await bank.close()

    async def _recall(self, chain: str, holder: Holder, wanted: list[Lane]) -> list[Ask]:
        found: list[Ask] = await self.place.ask(holder.name, "recall", chain, holder, wanted, seconds=RECALL_SECONDS)
        return found

    def _earnings(self) -> Receivables:
        if self._receivables is None:
            raise RetryElsewhere("Accounting is not ready yet.", status=503, code="accounting_away", retry_after=1)
        return self._receivables
