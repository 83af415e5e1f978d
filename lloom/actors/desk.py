"""How a Worker reaches the accounting actor of one chain, and sends what it signs. It decides nothing."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

from loguru import logger

from lloom.actors.outbox import Outbox
from lloom.actors.place import Place, ledger_name
from lloom.adapters.bridge import Connection
from lloom.adapters.serving.till import Till
from lloom.core.billing.receipt import Draft
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId
from lloom.core.messages import LaneCall, LaneState, Receipts, SignedReceipt
from lloom.core.parcel import Drafts
from lloom.core.payment.domain import domain
from lloom.core.payment.receivable import Ask, Grant, Holder

ASK_SECONDS: Final = 10.0
"""For calls to fellow actors; they answer within milliseconds unless they are being restarted (1.4 to 2.7 s)."""
RETRY_SECONDS: Final = 0.25
RECEIPTS_PER_MESSAGE: Final = 14
"""So that a control message stays under what any peer takes (messages.MIN_CONTROL)."""

T = TypeVar("T")
Bill = tuple[Connection, Draft]


class ChainDesk:
    """A `serving.desk.Desk`, and the till that uses it. `run` enlists this life of the Worker, then talks for the till."""

    def __init__(self, place: Place, chain: str, holder: Holder) -> None:
        settings = place.settings
        self.till = Till(domain(settings.chain[chain]), place.node, settings.accounting, self)
        self._place = place
        self._ledger = ledger_name(chain)
        self.holder = holder
        self._bills: Outbox[Bill] = Outbox(f"receipts to sign ({chain})", self._issue, settings.accounting)
        self._enlisted = False

    async def run(self) -> None:
        """Enlists, for what an earlier life of this Worker had is free then. No lane is lent before."""
        while not self._enlisted:
            try:
                await self._enlist()
            except RetryElsewhere as away:
                logger.debug("{}; asking again", away)
                await asyncio.sleep(RETRY_SECONDS)

    async def close(self) -> None:
        """Hands in what is left: receipts to be signed, then vouchers."""
        await self._bills.close()
        await self.till.close()

    async def lend(self, asks: list[Ask]) -> list[Grant]:
        """As `Desk.lend`."""
        if not self._enlisted:
            await self._enlist()
        granted: list[Grant] = await self._ask("lend", self.holder, asks)
        return granted

    async def lane(self, client: NodeId, call: LaneCall) -> LaneState:
        """As `Desk.lane`."""
        state: LaneState = await self._ask("lane", client, call)
        return state

    def bill(self, connection: Connection, draft: Draft) -> None:
        """As `Desk.bill`."""
        self._bills.put((connection, draft))

    async def _enlist(self) -> None:
        await self._ask("enlist", self.holder)
        self._enlisted = True

    async def _issue(self, bills: list[Bill]) -> None:
        """The same draft gives the same receipt, so asking again after a crash of the ledger is safe."""
        drafts = Drafts(draft for _, draft in bills)
        signed = await self._ask("charge", self.holder, drafts)
        self.till.issued(draft.lane for draft in drafts)
        send_receipts(bills, signed)

    async def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            return await self._place.ask(self._ledger, method, *arguments, seconds=ASK_SECONDS)
        except RetryElsewhere as error:
            cause = getattr(error, "cause", None)  # Ray's form of it carries a trace, which is not for clients
            raise (cause if isinstance(cause, RetryElsewhere) else error) from error


def send_receipts(bills: Iterable[Bill], signed: Iterable[SignedReceipt]) -> None:
    """Sends each receipt to whom it is for."""
    by_connection: dict[Connection, list[SignedReceipt]] = defaultdict(list)
    for (connection, _), receipt in zip(bills, signed, strict=True):
        by_connection[connection].append(receipt)
    for connection, receipts in by_connection.items():
        for few in batched(receipts, RECEIPTS_PER_MESSAGE):
            connection.send_control(Receipts(list(few)))


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`items` in slices of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))
