"""A Worker's till on one chain: requests draw on slices of lanes that the ledger granted before. It keeps nothing on disk.

A request whose slice covers it waits for nobody: its voucher goes to the ledger behind it, and may be drawn on once that has it
on the disk. Only when a slice is short, the request waits for one answer of the ledger, together with all others that wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from copy import copy
from typing import Final, Protocol

from loguru import logger

from lloom.adapters.bridge import Connection
from lloom.adapters.serving.forgiven import Forgiven
from lloom.adapters.serving.slices import Slice, Waiting
from lloom.adapters.serving.tab import Price, Tab
from lloom.core.eip712 import Domain
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import NodeId
from lloom.core.messages import LaneCall, LaneState, Need, SignedVoucher, wei
from lloom.core.payment.receivable import Ask, Grant, Reason
from lloom.core.payment.voucher import MAX_AMOUNT, check, read
from lloom.core.receipt import Draft, Lane
from lloom.core.settings import AccountingSettings

MAX_SLICES: Final = 20_000
"""Lanes at hand, about 1 kB each."""
MAX_LANES: Final = 8
"""Of one client: one for each process of its that pays."""
MAX_CALLS: Final = 64
"""Calls of the ledger at once: a new client's waits for the chain, and must not hold up the others."""
PAID_FOR_GRACE: Final = 32
"""So much has to be paid for one that may be forgiven again."""
IDLE_SECONDS: Final = 60.0
"""A lane that nobody used for so long is given back."""
RETRY_SECONDS: Final = 0.5
"""The ledger is back within 1.4 to 2.7 s if it was killed."""
LEDGER_SECONDS: Final = 10.0
"""How long a request waits for the ledger before it begins."""
CLOSE_SECONDS: Final = 5.0

_AWAY: Final = frozenset({"restarting", "accounting_away", "accounting_busy", "journal_stuck"})
"""Errors after which the ledger is asked again; others are for whoever waits."""
_FAILED: Final = RetryElsewhere("This executor's ledger failed.", status=500, code="internal")
_WHY: Final[dict[Reason, str]] = {
    "voucher": "This request needs a voucher of {needed} on its lane, {short} more than there is, in smallest units.",
    "funds": "Your deposit does not cover this request: {short} smallest units are missing for this executor to rely on.",
    "debt": "You owe this executor more than it lends, on another lane: send a voucher for that first.",
    "lanes": "You have too many lanes at this executor.",
    "chain": "The chain does not say right now what you have deposited.",
}


class Desk(Protocol):
    """Where the till's asks and bills go: the Accounting actor of its chain."""

    async def lend(self, asks: list[Ask]) -> list[Grant]:
        """Once the vouchers and grants are on the disk. RetryElsewhere if the ledger is away or busy."""

    async def lane(self, client: NodeId, call: LaneCall) -> LaneState:
        """What the ledger knows of a lane."""

    def bill(self, connection: Connection, draft: Draft) -> None:
        """Has a receipt issued, and sent over the connection; never waits. `Till.issued` hears of it."""


class Till:
    """Its life is `run` in one task, then `close`."""

    def __init__(self, domain: Domain, executor: NodeId, limits: AccountingSettings, desk: Desk) -> None:
        self.domain = domain
        self.desk = desk
        self._executor = executor
        self._limits = limits
        self._slices: dict[Lane, Slice] = {}
        self._lanes: Counter[bytes] = Counter()
        self._due: dict[Slice, None] = {}
        self._some = asyncio.Event()
        self._urgent = asyncio.Event()
        self._calls = asyncio.Semaphore(MAX_CALLS)
        self._number = 0
        self._forgiven = Forgiven(MAX_SLICES)
        self._loop = asyncio.get_running_loop()

    @property
    def credit_seconds(self) -> float:
        """How long an answer waits for credit."""
        return self._limits.credit_seconds

    # What the counter calls

    async def open(self, connection: Connection, lane: Lane, price: Price, prompt: int) -> Tab:
        """A tab for a request, once its first draw is covered. RetryElsewhere (402 `payment_required`, mostly) if it is not."""
        found, draw = self._slice(lane), price.first
        if found.fresh or found.waiting or found.free < draw:
            await self._wait(found, draw)
        else:
            found.open += draw
        if found.voucher is not None and found.free < draw:  # the next one like it should not have to wait
            self._report_soon(found, urgent=True)
        return Tab(self, found, connection, price, prompt)

    def take(self, client: NodeId, signed: SignedVoucher) -> None:
        """A voucher of `client` came. PeerFault if it is somebody else's, or none; one that is no better is not looked at."""
        voucher = read(signed)
        if voucher.client != client or voucher.executor != self._executor:
            raise PeerFault("a voucher between others", code="bad_voucher")
        lane = Lane(voucher.client, voucher.token, voucher.lane)
        worth = (voucher.cumulative, sum(usage.requests for usage in signed.usages))
        known = self._slices.get(lane)
        if known is not None and worth <= known.best:
            return
        checked = check(signed, self._executor, self.domain)
        found = self._slice(lane)
        found.best, found.voucher, found.refused = worth, checked, False
        self._report_soon(found, urgent=bool(found.waiting or found.short))

    def holds(self, signed: SignedVoucher) -> bool:
        """Whether the voucher's lane is in use here."""
        voucher = read(signed)
        return Lane(voucher.client, voucher.token, voucher.lane) in self._slices

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
                self._report_soon(slice_, urgent=True)
        return got

    def insist(self, slice_: Slice) -> None:
        """Asks the ledger again, though it had nothing."""
        slice_.refused = False
        self._report_soon(slice_, urgent=True)

    def settle(self, tab: Tab, slice_: Slice, drawn: int, billed: int | None) -> None:
        """A request is over: what it did not cost can be drawn by others."""
        slice_.short.pop(tab, None)
        slice_.open -= drawn
        slice_.used_at = self._loop.time()
        if billed is not None:
            slice_.spent += billed
            slice_.unbilled += 1
            self._forgiven.reduce(slice_.lane.client, billed // PAID_FOR_GRACE)
        slice_.serve()

    def forgive(self, client: bytes, lost: int, most: int) -> bool:
        """Whether a client is not charged for `lost`, as long as that is at most `most` in all; what it pays makes up for it."""
        return self._forgiven.add(client, lost, most)

    # What the Worker calls

    def issued(self, lanes: Iterable[Lane]) -> None:
        """The ledger has charged a receipt on each of these, as many times as they are named."""
        for lane in lanes:
            if (found := self._slices.get(lane)) is not None:
                found.unbilled -= 1

    def recall(self, lanes: Iterable[Lane]) -> list[Ask]:
        """Gives back what is not drawn of these lanes: another Worker needs it."""
        asks = []
        for lane in lanes:
            found = self._slices.get(lane)
            if found is None:
                asks.append(Ask(lane=lane, number=self._next(), fresh=True, back=True))
            elif (back := found.give_back(self._next())) is not None:
                asks.append(back)
        return asks

    async def run(self) -> None:
        """Talks with the ledger, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tidy())
            while True:
                await self._some.wait()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._limits.report_seconds):
                        await self._urgent.wait()
                for batch in self._take_due():
                    group.create_task(self._report(batch))

    async def close(self) -> None:
        """Hands in the vouchers that the ledger does not have yet."""
        for each in self._slices.values():
            each.in_flight = False
            if each.voucher is not None:
                self._due[each] = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*map(self._report, self._take_due()))

    # The ledger

    def _report_soon(self, slice_: Slice, *, urgent: bool) -> None:
        self._due[slice_] = None
        self._some.set()
        if urgent:
            self._urgent.set()

    def _take_due(self) -> list[list[Slice]]:
        """What to ask now, in calls: those of lanes that are new may take long, and go alone."""
        due = [each for each in self._due if not each.in_flight]
        self._due.clear()  # those in flight are looked at again when they have landed
        self._some.clear()
        self._urgent.clear()
        for each in due:
            each.in_flight = True
        known = [each for each in due if not each.fresh]
        size = self._limits.batch
        batches = [known[start : start + size] for start in range(0, len(known), size)]
        return batches + [[each] for each in due if each.fresh]

    async def _report(self, batch: Sequence[Slice]) -> None:
        """One call of the ledger."""
        async with self._calls:
            asks = [each.ask(self._next()) for each in batch]
            try:
                grants = await self.desk.lend(asks)
            except RetryElsewhere as error:
                logger.debug("the ledger does not answer: {}", error)
                await self._failed(batch, error)
            except Exception:  # noqa: BLE001 - the boundary of this task: the next call may go well
                logger.exception("the ledger failed")
                await self._failed(batch, _FAILED)
            else:
                for each, ask, grant in zip(batch, asks, grants, strict=True):
                    self._landed(each, ask, grant)

    async def _failed(self, batch: Sequence[Slice], error: RetryElsewhere) -> None:
        if error.code not in _AWAY:
            for each in batch:
                _refuse(each, error)
        await asyncio.sleep(RETRY_SECONDS)
        for each in batch:
            each.in_flight = False
            self._report_soon(each, urgent=each.wanted > 0)

    def _landed(self, slice_: Slice, ask: Ask, grant: Grant) -> None:
        """The ledger has answered."""
        slice_.in_flight = False
        if slice_.voucher is ask.voucher:
            slice_.voucher = None
        self._granted(slice_, grant)
        unheard = any(not each.asked for each in slice_.waiting)
        if slice_.voucher is not None or unheard or (slice_.wanted and not slice_.refused):
            self._report_soon(slice_, urgent=slice_.wanted > 0)
        elif slice_.idle and (slice_.leaving or not slice_.granted):
            self._forget(slice_)
        slice_.leaving = False

    def _granted(self, slice_: Slice, grant: Grant) -> None:
        slice_.hear(grant)
        slice_.refused = grant.short > 0
        if not slice_.refused:
            return
        _refuse(slice_, _refusal(grant))
        if slice_.short and grant.reason == "voucher" and grant.needed <= MAX_AMOUNT:
            lane = slice_.lane
            need = Need(self.domain.chain_id, lane.token, lane.number, wei(grant.needed))
            for connection in {tab.connection for tab in slice_.short}:
                connection.send_control(need)

    # Slices

    def _slice(self, lane: Lane) -> Slice:
        """The slice of a lane, maybe a new one. RetryElsewhere (429) if there are too many."""
        found = self._slices.get(lane)
        if found is None:
            if len(self._slices) >= MAX_SLICES or self._lanes[lane.client] >= MAX_LANES:
                raise RetryElsewhere(
                    "Too many lanes are in use here.", status=429, code="too_many_lanes", retry_after=IDLE_SECONDS
                )
            found = self._slices[lane] = Slice(lane, self._loop.time())
            self._lanes[lane.client] += 1
        found.used_at = self._loop.time()
        return found

    def _forget(self, slice_: Slice) -> None:
        client = slice_.lane.client
        if self._slices.pop(slice_.lane, None) is None:
            return
        self._due.pop(slice_, None)
        self._lanes[client] -= 1
        if not self._lanes[client]:
            del self._lanes[client]

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(IDLE_SECONDS / 2)
            self.tidy(self._loop.time() - IDLE_SECONDS)

    def tidy(self, before: float) -> None:
        """Gives back the lanes that were not used since then."""
        for each in list(self._slices.values()):
            if each.idle and each.used_at <= before:
                each.leaving = not each.fresh
                if each.fresh:
                    self._forget(each)
                else:
                    self._report_soon(each, urgent=False)

    async def _wait(self, slice_: Slice, amount: int) -> None:
        """Draws `amount` once it is there."""
        waiting = Waiting(amount, self._loop.create_future())
        slice_.waiting.append(waiting)
        self._report_soon(slice_, urgent=True)
        try:
            async with asyncio.timeout(LEDGER_SECONDS):
                await waiting.done
        except BaseException as error:
            self._leave(slice_, waiting)
            if isinstance(error, TimeoutError):
                raise RetryElsewhere(
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

    def _next(self) -> int:
        self._number += 1
        return self._number


def _refuse(slice_: Slice, error: RetryElsewhere) -> None:
    """Sends those away on whose behalf the ledger was asked."""
    asked = [each for each in slice_.waiting if each.asked]
    for each in asked:
        slice_.waiting.remove(each)
        if not each.done.done():
            each.done.set_exception(copy(error))


def _refusal(grant: Grant) -> RetryElsewhere:
    text = _WHY[grant.reason or "voucher"].format(needed=grant.needed, short=grant.short)
    if grant.reason == "chain":
        return RetryElsewhere(text, status=503, code="chain_away", retry_after=5.0)
    return RetryElsewhere(text, status=402, code="payment_required")
