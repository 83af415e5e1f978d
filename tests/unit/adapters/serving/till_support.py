"""A till with a ledger in memory behind it: the real rules, no disk, no chain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from lloom.adapters.bridge import Connection
from lloom.adapters.serving.tab import Price, Tab
from lloom.adapters.serving.till import Till
from lloom.core.billing.lane import Lane
from lloom.core.billing.quote import PRICE_UNIT, Quote
from lloom.core.billing.receipt import Draft
from lloom.core.eip712 import Domain
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity, NodeId
from lloom.core.messages import Control, LaneCall, LaneState, SignedVoucher, Usage
from lloom.core.payment import receivable, voucher
from lloom.core.payment.receivable import Ask, Client, Grant, Holder, Means, Receivable
from lloom.core.payment.voucher import Voucher
from tests.money_support import accounting

DOMAIN = Domain(31337, b"\xc0" * 20)
EXECUTOR = Identity(bytes(31) + b"\x02")
CLIENT = Identity(bytes(31) + b"\x01")
TOKEN = bytes(20)
LANE = Lane(CLIENT.address, TOKEN, 0)
HOLDER = Holder("executor-worker-0", b"a")
WINDOW = 10


def quote(window: int = WINDOW) -> Quote:
    """A token costs one, in and out."""
    return Quote(
        executor=EXECUTOR.address,
        model=bytes(32),
        token=TOKEN,
        input_price=PRICE_UNIT,
        cached_price=PRICE_UNIT,
        output_price=PRICE_UNIT,
        request_fee=0,
        min_window=window,
        valid_from=0,
        valid_until=1 << 40,
        tokenizer_hash=bytes(32),
        basis=1,
        terms_hash=bytes(32),
        seq=1,
    )


def price(inputs: int = 0, outputs: int = 1000, window: int = WINDOW) -> Price:
    return Price(quote(window), inputs, inputs + outputs)


def signed(
    cumulative: int, lane: Lane = LANE, by: Identity = CLIENT, executor: Identity = EXECUTOR, requests: int = 0
) -> SignedVoucher:
    usages = (Usage(bytes(32), 0, 0, requests),) if requests else ()
    words = Voucher(lane.client, executor.address, lane.token, lane.number, cumulative, 0, voucher.usage_hash(usages))
    return voucher.sign(words, usages, (), by, DOMAIN)


@dataclass(eq=False)
class FakeConnection:
    peer: NodeId = CLIENT.address
    told: list[Control] = field(default_factory=list)

    def send_control(self, message: Control) -> None:
        self.told.append(message)

    @property
    def connection(self) -> Connection:
        return cast(Connection, self)


@dataclass
class FakeDesk:
    """The ledger. While it is not `there`, it does not answer; `errors` are raised first."""

    states: dict[Lane, Receivable] = field(default_factory=dict)
    means: Means = field(default_factory=lambda: Means(10**9, 10**9))
    asks: list[Ask] = field(default_factory=list)
    calls: int = 0
    errors: list[Exception] = field(default_factory=list)
    there: asyncio.Event = field(default_factory=asyncio.Event)
    bills: list[Draft] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.there.set()

    async def lend(self, asks: list[Ask]) -> list[Grant]:
        self.calls += 1
        await self.there.wait()
        if self.errors:
            raise self.errors.pop(0)
        await asyncio.sleep(0)
        return [self.one(ask) for ask in asks]

    def one(self, ask: Ask, holder: Holder = HOLDER) -> Grant:
        self.asks.append(ask)
        state = self.states.get(ask.lane) or Receivable(lane=ask.lane)
        if ask.voucher is not None:
            state = receivable.vouched(state, ask.voucher.voucher.cumulative)
        others = [other for lane, other in self.states.items() if lane != ask.lane and lane.client == ask.lane.client]
        self.states[ask.lane], grant = receivable.lend(state, holder, ask, Client(others, self.means, 0))
        return grant

    async def lane(self, client: NodeId, call: LaneCall) -> LaneState:
        raise RetryElsewhere("not here")

    def bill(self, connection: Connection, draft: Draft) -> None:
        self.bills.append(draft)


@dataclass
class Counter:
    till: Till
    desk: FakeDesk
    connection: FakeConnection = field(default_factory=FakeConnection)

    async def open(self, *, voucher: int | None = None, lane: Lane = LANE, **what: Any) -> Tab:
        """A request that begins, with a voucher of so much in its call."""
        if voucher is not None:
            self.till.take(NodeId(lane.client), signed(voucher, lane))
        cost = price(**what)
        return await self.till.open(self.connection.connection, lane, cost, cost.inputs)

    @property
    def free(self) -> int:
        return self.till._shelf.slices[LANE].free


@asynccontextmanager
async def counter(**limits: Any) -> AsyncIterator[Counter]:
    """A till at work. Whatever is granted in the end is what the till believes."""
    desk = FakeDesk()
    rules = accounting(**{"report_seconds": 3600.0, "credit_seconds": 60.0, **limits})
    till = Till(DOMAIN, EXECUTOR.address, rules, desk)
    work = asyncio.create_task(till.run())
    try:
        async with asyncio.timeout(20):
            yield Counter(till, desk)
        assert not work.done()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
