"""A Worker's till on one chain: requests draw on slices of lanes that the ledger granted before. It keeps nothing on disk.

A request whose slice covers it waits for nobody: its voucher goes to the ledger behind it, and may be drawn on once that has it
on the disk. Only when a slice is short, the request waits for one answer of the ledger, together with all others that wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from lloom.adapters.bridge import Connection
from lloom.adapters.serving.desk import Desk
from lloom.adapters.serving.forgiven import Forgiven
from lloom.adapters.serving.reports import Reports
from lloom.adapters.serving.shelf import IDLE_SECONDS, MAX_SLICES, Shelf
from lloom.adapters.serving.slices import Slice, Waiting
from lloom.adapters.serving.tab import Price, Tab
from lloom.core.billing.lane import Lane
from lloom.core.billing.receipt import Draft
from lloom.core.eip712 import Domain
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import NodeId
from lloom.core.messages import SignedVoucher
from lloom.core.payment.receivable import Ask
from lloom.core.payment.voucher import check, read
from lloom.core.settings import AccountingSettings

PAID_FOR_GRACE: Final = 32
"""So much has to be paid for one that may be forgiven again."""
NEXT: Final = 8
"""Requests that may come while the ledger answers."""
LEDGER_SECONDS: Final = 10.0
"""How long a request waits for the ledger before it begins."""


class Till:
    """Its life is `run` in one task, then `close`."""

    def __init__(self, domain: Domain, executor: NodeId, limits: AccountingSettings, desk: Desk) -> None:
        self.domain = domain
        self.desk = desk
        self._executor = executor
        self._limits = limits
        self._shelf = Shelf()
        self._reports = Reports(domain.chain_id, desk, limits, self._shelf)
        self._forgiven = Forgiven(MAX_SLICES)
        self._loop = asyncio.get_running_loop()

    @property
    def credit_seconds(self) -> float:
        """How long an answer waits for credit."""
        return self._limits.credit_seconds

    # What the counter calls

    async def open(self, connection: Connection, lane: Lane, price: Price, prompt: int) -> Tab:
        """A tab for a request, once its first draw is covered. RetryElsewhere (402 `payment_required`, mostly) if it is not."""
        found, draw = self._shelf.take(lane), price.first
        if found.fresh or found.waiting or found.free < draw:
            await self._wait(found, draw, connection)
        else:
            found.open += draw
        if found.voucher is not None and found.free < NEXT * draw:  # the next ones like it should not have to wait
            self._reports.soon(found, urgent=True)
        return Tab(self, found, connection, price, prompt)

    def take(self, client: NodeId, signed: SignedVoucher) -> None:
        """A voucher of `client` came. PeerFault if it is somebody else's, or none; one that is no better is not looked at."""
        voucher = read(signed)
        if voucher.client != client or voucher.executor != self._executor:
            raise PeerFault("a voucher between others", code="bad_voucher")
        lane = Lane(voucher.client, voucher.token, voucher.lane)
        worth = (voucher.cumulative, sum(usage.requests for usage in signed.usages))
        known = self._shelf.slices.get(lane)
        if known is not None and worth <= known.best:
            return
        checked = check(signed, self._executor, self.domain)
        found = self._shelf.take(lane)
        found.best, found.voucher, found.refused = worth, checked, False
        self._reports.soon(found, urgent=bool(found.waiting or found.short))

    def holds(self, signed: SignedVoucher) -> bool:
        """Whether the voucher's lane is in use here."""
        voucher = read(signed)
        return Lane(voucher.client, voucher.token, voucher.lane) in self._shelf.slices

    def bill_again(self, connection: Connection, draft: Draft) -> None:
        """Has the receipt of a request that is over sent again. The ledger knows it by its draft, and charges nothing twice."""
        self._shelf.take(draft.lane).unbilled += 1  # `issued` takes it back
        self.desk.bill(connection, draft)

    # What tabs call

    def more(self, tab: Tab, slice_: Slice, wanted: int) -> int:
        """Draws up to `wanted`; what is missing is asked for."""
        got = max(0, min(wanted, slice_.free))
        slice_.open += got
        if got == wanted:
            slice_.short.pop(tab, None)
        else:
            if tab not in slice_.short:
                slice_.refused = False
            slice_.short[tab] = wanted - got
            if not slice_.refused:
                self._reports.soon(slice_, urgent=True)
        return got

    def insist(self, slice_: Slice) -> None:
        """Asks the ledger again, though it had nothing."""
        slice_.refused = False
        self._reports.soon(slice_, urgent=True)

    def settle(self, tab: Tab, slice_: Slice, drawn: int, billed: int | None) -> None:
        """A request is over: what it did not cost can be drawn by others."""
        slice_.short.pop(tab, None)
        slice_.open -= drawn
        slice_.used_at = self._loop.time()
        if billed is not None:
            slice_.spent += billed
            slice_.unbilled += 1
            self._forgiven.reduce(slice_.lane.client, billed // PAID_FOR_GRACE)
        if slice_.short or slice_.waiting:
            slice_.serve()
        if slice_.waiting and not slice_.open:  # there is nothing left to wait for
            self.insist(slice_)

    def forgive(self, client: bytes, lost: int, most: int) -> bool:
        """Whether a client is not charged for `lost`, as long as that is at most `most` in all; what it pays makes up for it."""
        return self._forgiven.add(client, lost, most)

    # What the Worker calls

    def issued(self, lanes: Iterable[Lane]) -> None:
        """The ledger has charged a receipt on each of these, as many times as they are named."""
        for lane in lanes:
            if (found := self._shelf.slices.get(lane)) is not None:
                found.unbilled -= 1

    def recall(self, lanes: Iterable[Lane]) -> list[Ask]:
        """Gives back what is not drawn of these lanes: another Worker needs it."""
        asks = []
        for lane in lanes:
            found = self._shelf.slices.get(lane)
            if found is None:
                asks.append(Ask(lane=lane, number=self._reports.number(), fresh=True, back=True))
            elif (back := found.give_back(self._reports.number())) is not None:
                asks.append(back)
        return asks

    async def run(self) -> None:
        """Talks with the ledger, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tidy())
            group.create_task(self._reports.run())

    async def close(self) -> None:
        """Hands in the vouchers that the ledger does not have yet."""
        await self._reports.close(self._shelf.slices.values())

    # Slices

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(IDLE_SECONDS / 2)
            self.tidy(self._loop.time() - IDLE_SECONDS)

    def tidy(self, before: float) -> None:
        """Gives back the lanes that were not used since then."""
        for each in self._shelf.idle(before):
            each.leaving = not each.fresh
            if each.fresh:
                self._reports.forget(each)
            else:
                self._reports.soon(each, urgent=False)

    async def _wait(self, slice_: Slice, amount: int, connection: Connection) -> None:
        """Draws `amount` once it is there."""
        waiting = Waiting(amount, connection, self._loop.create_future())
        slice_.waiting.append(waiting)
        self._reports.soon(slice_, urgent=True)
        try:
            async with asyncio.timeout(LEDGER_SECONDS):
                await waiting.done
        except BaseException as error:
            self._leave(slice_, waiting)
            if isinstance(error, TimeoutError):
                raise waiting.excuse or RetryElsewhere(
                    "This executor's ledger does not answer.", status=503, code="accounting_away", retry_after=1.0
                ) from None
            raise

    def _leave(self, slice_: Slice, waiting: Waiting) -> None:
        """Whoever waits no more leaves what it waited for to others, even if it came in this moment."""
        if waiting in slice_.waiting:
            slice_.waiting.remove(waiting)
        elif not waiting.done.cancelled() and waiting.done.exception() is None:
            slice_.open -= waiting.amount
            slice_.serve()
