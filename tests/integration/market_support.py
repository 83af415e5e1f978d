"""A market in one process: sellers with real bridges that can be told to cheat, and a buyer with a real journal.

Prices are a thousand smallest units a token, for prompt and answer alike, so that amounts read as tokens.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from bridge_support import NETWORK, certificate, read_all, settings
from payables_support import CLIENT, TOKEN, FakeContract, opened

from lloom.adapters.bridge import Connection, Link, Listener, Service, Stream, dial
from lloom.adapters.payment.payables import Payables, Purchasing
from lloom.adapters.routing.attempt import Keeping
from lloom.adapters.routing.deliveries import Deliveries
from lloom.adapters.routing.directory import Directory
from lloom.adapters.routing.lane import Lane
from lloom.adapters.routing.offers import Scope
from lloom.adapters.routing.pockets import NOBODYS, Pockets
from lloom.adapters.routing.pool import Pool
from lloom.adapters.routing.purse import Purse
from lloom.adapters.routing.purses import Purses
from lloom.adapters.routing.router import Router
from lloom.adapters.routing.wallet import Wallet
from lloom.core.billing.quote import Quote, cost, model_hash, quotes_of
from lloom.core.billing.receipt import Receipt, Status, sign_receipt
from lloom.core.billing.request import Request, check_request
from lloom.core.eip712 import Domain
from lloom.core.identity import NodeId
from lloom.core.messages import (
    Control,
    Done,
    LaneCall,
    LaneState,
    ModelCall,
    Need,
    OfferCall,
    Receipts,
    SignedReceipt,
    SignedVoucher,
    encode,
    wei,
)
from lloom.core.offer import Endpoint, ModelOffer, Offer, Payment, fingerprint, seal
from lloom.core.order import Client
from lloom.core.payment.payable import Judged, LaneEntry
from lloom.core.payment.promises import Ask, Raised
from lloom.core.payment.voucher import check
from lloom.core.routing.filters import Problem
from lloom.core.routing.outcomes import Failure, Outcomes, Place
from lloom.core.routing.plans import Plans
from lloom.core.settings import PrepaySettings, RoutingSettings
from tests.money_support import accounting
from tests.unit.adapters.routing_support import SETTINGS as ROUTING
from tests.unit.adapters.routing_support import FakeDht, FakeExecutor, chunk

DOMAIN = Domain(31337, b"\xc0" * 20)
PRICE = 1_000 * 10**6
TOKEN_COST = 1_000
"""What a token costs."""
WINDOW = 16
PER_EXECUTOR = 4_000 * TOKEN_COST
"""Enough for 64 streams at once."""
WORD = chunk({"content": " hello"})
"""One token of an answer."""
END = chunk({}, "stop")


@dataclass
class Book:
    """What a seller knows of one lane."""

    number: int
    seq: int = 0
    charged: int = 0
    best: int = 0
    voucher: SignedVoucher | None = None
    receipts: list[SignedReceipt] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Sale:
    """One request at a seller."""

    seller: Seller
    stream: Stream
    call: ModelCall
    request: Request
    digest: bytes
    quote: Quote
    book: Book
    body: bytes
    sent: list[bytes] = field(default_factory=list)

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            await self.stream.send(part)
            self.sent.append(part)

    def receipt(self, inputs: int, outputs: int, **changes: Any) -> SignedReceipt:
        """A receipt of what was sent, honestly numbered unless told otherwise; it is in the seller's book."""
        delivered = b"".join(self.sent)
        total = changes.pop("cost", cost(self.quote, inputs, 0, outputs))
        self.book.seq += 1
        self.book.charged += total
        honest = Receipt(
            request_digest=self.digest,
            model=model_hash("m"),
            response_hash=hashlib.sha256(self.call.salt + delivered).digest(),
            response_bytes=len(delivered),
            input_tokens=inputs,
            cached_tokens=0,
            output_tokens=outputs,
            cost=total,
            lane_seq=self.book.seq,
            lane_charged=self.book.charged,
            started_at=1,
            finished_at=2,
            status=changes.pop("status", Status.COMPLETE),
        )
        signed = sign_receipt(msgspec.structs.replace(honest, **changes), self.seller.identity, DOMAIN)
        self.book.receipts.append(signed)
        return signed

    def bill(self, *receipts: SignedReceipt) -> None:
        self.stream.connection.send_control(Receipts(list(receipts)))

    def need(self, cumulative: int) -> None:
        need = Need(DOMAIN.chain_id, TOKEN, self.request.lane, wei(cumulative))
        self.stream.connection.send_control(need)

    async def vouched(self, amount: int) -> None:
        """Returns when a voucher over `amount` is here."""
        while self.book.best < amount:
            self.book.changed.clear()
            await self.book.changed.wait()


Serve = Callable[[Sale], Awaitable[None]]


async def well(sale: Sale, words: int = 4) -> None:
    """Serves as it should."""
    await sale.send(*[WORD] * words, END)
    await sale.stream.finish(Done(9, words))
    sale.bill(sale.receipt(9, words))


class Seller(FakeExecutor):
    """An executor with a real bridge that wants to be paid."""

    def __init__(self, serve: Serve = well, price: int = PRICE, payments: tuple[Payment, ...] | None = None) -> None:
        self.payments = (Payment(31337, DOMAIN.contract, TOKEN, 10**6),) if payments is None else payments
        self.window = WINDOW
        super().__init__(1, price=price)
        self.serve = serve
        self.books: dict[int, Book] = {}
        self.sales: list[Sale] = []
        self.vouchers: list[int] = []
        self.lane_calls = 0
        self.listener: Listener
        self.port = 1

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", getattr(self, "port", 1))

    def _model(self, name: str) -> ModelOffer:
        return msgspec.structs.replace(super()._model(name), input_price=self.price)

    def seal(self) -> None:
        super().seal()
        self.offer: Offer = msgspec.structs.replace(self.offer, payments=self.payments, window=self.window)
        self.sealed = seal(self.offer, self.identity, NETWORK)
        self.fingerprint = fingerprint(self.sealed)

    @property
    def book(self) -> Book:
        [found] = self.books.values()
        return found

    def take(self, signed: SignedVoucher) -> None:
        """A voucher came; it must be the client's, for this seller."""
        voucher = check(signed, self.address, DOMAIN).voucher
        assert voucher.client == CLIENT.address
        book = self.books.setdefault(voucher.lane, Book(voucher.lane))
        self.vouchers.append(voucher.cumulative)
        if voucher.cumulative >= book.best:
            book.best, book.voucher = voucher.cumulative, signed
        book.changed.set()

    async def handle(self, stream: Stream) -> None:
        match stream.call:
            case OfferCall():
                await stream.send(self.sealed)
                await stream.finish()
            case LaneCall() as call:
                self.lane_calls += 1
                await stream.send(encode(self.state(call)))
                await stream.finish()
            case ModelCall() as call:
                body = await read_all(stream)
                if call.voucher is not None:
                    self.take(call.voucher)
                checked = check_request(call.request, call.signature, DOMAIN if self.payments else Domain(), 0)
                lane = checked.request.lane
                quote = quotes_of(self.offer, self.offer.models[0])[0][1]
                book = self.books.setdefault(lane, Book(lane))
                sale = Sale(self, stream, call, checked.request, checked.digest, quote, book, body)
                self.sales.append(sale)
                await self.serve(sale)

    def state(self, call: LaneCall) -> LaneState:
        """What is answered to a lane call."""
        book = self.books.get(call.lane, Book(call.lane))
        return LaneState(
            wei(book.charged), book.seq, wei(0), book.voucher, tuple(book.receipts[call.since : call.since + 1000])
        )

    def control(self, _connection: Connection, message: Control) -> None:
        if isinstance(message, SignedVoucher):
            self.take(message)


@dataclass
class LocalBank:
    """The ledger without an actor between. `asked`: what was waited for; `gate`: what raises wait for."""

    payables: Payables
    asked: list[str] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    gate: asyncio.Event | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def lane(self, executor: NodeId) -> LaneEntry | None:
        self.asked.append("lane")
        return await self.payables.lane(executor)

    async def adopt(self, executor: NodeId, entry: LaneEntry) -> LaneEntry:
        self.asked.append("adopt")
        return await self.payables.adopt(executor, entry)

    async def raise_ceiling(self, ask: Ask) -> Raised:
        self.asked.append("raise")
        if self.gate is not None:
            await self.gate.wait()
        return await self.payables.raise_ceiling(ask)

    async def purchasing(self) -> Purchasing:
        return await self.payables.purchasing()

    def keep(self, judged: Judged) -> None:
        self.judged.append(judged)
        task = asyncio.create_task(self.payables.keep([judged]))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def close(self) -> None:
        await asyncio.gather(*self.tasks)

    async def settled(self, receipts: int) -> None:
        """Returns when so many receipts were judged and journaled."""
        while len(self.judged) < receipts or self.tasks:  # noqa: ASYNC110 - it is a file
            await asyncio.sleep(0.001)


@dataclass
class Buyer:
    """A client's router and its purse."""

    router: Router
    purse: Purse
    purses: Purses
    bank: LocalBank
    outcomes: Outcomes
    deliveries: Deliveries
    lies: list[Place]
    free: list[SignedReceipt]

    def lane(self, seller: Seller) -> Lane:
        return self.purse.lanes._lanes[seller.address]

    @property
    def problems(self) -> list[str]:
        return [each.problem for each in self.bank.judged]


@asynccontextmanager
async def listening(*sellers: Seller) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for seller in sellers:
            service = Service(seller.address, NETWORK, settings(), seller.handle, seller.control)
            seller.listener = await Listener.start("127.0.0.1", 0, certificate(seller.identity), service)
            stack.push_async_callback(seller.listener.close)
            seller.port = seller.listener.port
            seller.seal()
        yield


@asynccontextmanager
async def buying(
    path: Path,
    *sellers: Seller,
    contract: FakeContract | None = None,
    routing: RoutingSettings = ROUTING,
    problem: Problem | None = None,
    banking: Callable[[Payables], LocalBank] | None = None,
    pockets: Pockets = NOBODYS,
    **changes: Any,
) -> AsyncIterator[Buyer]:
    """A buyer over the journal at `path`; `changes` are of the accounting's settings."""
    prepay = PrepaySettings(per_executor=PER_EXECUTOR, newcomers=4 * PER_EXECUTOR, ahead=1.0)
    limits = {"prepay": prepay, "closing_seconds": 0.05, "tolerance": 0.5, "slack": 4, "budget": None, **changes}
    async with AsyncExitStack() as stack:
        rich = FakeContract(available=1_000_000 * TOKEN_COST)
        payables = await stack.enter_async_context(opened(path, contract or rich, **limits))
        bank = (banking or LocalBank)(payables)
        outcomes = Outcomes(ROUTING.memory_seconds, ROUTING.cooldown_seconds)
        free: list[SignedReceipt] = []
        lies: list[Place] = []

        def judged(place: Place, accepted: bool) -> None:
            if not accepted:
                lies.append(place)
                outcomes.failed(place, asyncio.get_running_loop().time(), Failure.LIED, None)

        deliveries = Deliveries(lambda _, signed: free.append(signed), lambda *need: purses.on_need(*need))
        wallet = Wallet("anvil", CLIENT, DOMAIN, TOKEN, accounting(**limits), bank, judged)
        purse = Purse(wallet, bank, deliveries.take, pockets)
        purses = Purses([purse])
        link = Link(CLIENT, NETWORK, settings())

        async def reach(endpoint: Endpoint, executor: NodeId) -> Connection:
            return await dial(endpoint, executor, link, deliveries.on_control)

        pool = Pool(reach, 16)
        stack.push_async_callback(pool.close)
        stack.push_async_callback(bank.close)
        stack.push_async_callback(purses.close)
        directory = Directory(FakeDht(*sellers), None, pool, Scope(NETWORK, 20), ROUTING)
        stack.push_async_callback(directory.close)
        plans = Plans(routing, outcomes, problem or purses.misfit)
        router = Router(
            Client(CLIENT, Domain()), plans, directory, pool, Keeping(ROUTING, outcomes, deliveries), purses
        )
        stack.push_async_callback(router.close)
        purses.start()
        async with asyncio.timeout(60):
            await purses.looked()
            yield Buyer(router, purse, purses, bank, outcomes, deliveries, lies, free)
