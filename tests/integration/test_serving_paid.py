"""Paid requests over a real bridge, the executor's books on a real disk behind the counter: what is served, and what it costs."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from clock_support import leaping
from msgspec.structs import replace
from receivables_support import CHAIN, DOMAIN, EXECUTOR, Books, FakeBank, books
from test_serving import BODY, END, HANG, HELLO, SETTINGS, WORLD, ScriptedEngine, chunk, kind, model

from lloom.adapters.bridge import Connection, Link, Listener, Service, Stream, dial
from lloom.adapters.journal import lanes
from lloom.adapters.serving import Serving
from lloom.adapters.serving.till import Till
from lloom.adapters.serving.tills import Tills
from lloom.core import messages, tokens
from lloom.core.billing.lane import Lane
from lloom.core.billing.quote import Quote, cost, quote_hash, quote_of
from lloom.core.billing.receipt import Delivery, Draft, Receipt, Status, check_receipt, read_receipt
from lloom.core.billing.request import Request, request_digest, request_hash, sign_request
from lloom.core.eip712 import Domain
from lloom.core.errors import CallerFault, RetryElsewhere
from lloom.core.identity import Identity, NodeId
from lloom.core.messages import (
    Control,
    LaneCall,
    LaneState,
    ModelCall,
    Need,
    Receipts,
    SignedReceipt,
    SignedVoucher,
    amount,
)
from lloom.core.offer import Endpoint, Offer, Payment, seal
from lloom.core.payment import voucher
from lloom.core.payment.domain import payment
from lloom.core.payment.funds import Funds
from lloom.core.payment.receivable import Ask, Grant, Holder, Receivable
from lloom.core.payment.voucher import Voucher
from lloom.core.rates import Limits
from lloom.core.sse import event
from tests.integration.bridge_support import NETWORK, Executor, certificate, read_all, settings, until
from tests.money_support import accounting, lost

WINDOW = 10
INPUTS = tokens.count_messages([{"role": "user", "content": "Say hello."}], [], "o200k_base")
FIRST = INPUTS * 3 + WINDOW * 5
"""What is drawn before an answer begins."""
WORD = chunk(" word")


@dataclass
class Desk:
    """A Worker's way to the books, without actors between."""

    books: Books
    holder: Holder
    till: Till = field(init=False)
    calls: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    there: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.there.set()

    async def lend(self, asks: list[Ask]) -> list[Grant]:
        self.calls += 1
        await self.there.wait()
        return await self.books.receivables.lend(self.holder, asks)

    async def lane(self, client: NodeId, call: LaneCall) -> LaneState:
        return await self.books.receivables.lane(client, call)

    def bill(self, connection: Connection, draft: Draft) -> None:
        task = asyncio.create_task(self._issue(connection, draft))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _issue(self, connection: Connection, draft: Draft) -> None:
        signed = await self.books.receivables.issue(self.holder, [draft])
        self.till.issued([draft.lane])
        connection.send_control(Receipts(signed))


class Told(list[Control]):
    """What a client was told, and what it does about it."""

    on_need: Callable[[int], None] = staticmethod(lambda _: None)

    def append(self, message: Control) -> None:
        super().append(message)
        if isinstance(message, Need):
            self.on_need(amount(message.cumulative))


@dataclass
class Worker:
    serving: Serving
    desk: Desk
    engine: ScriptedEngine
    executor: Executor
    client: Identity
    connection: Connection
    told: Told

    async def open(self, call: ModelCall, body: bytes = BODY) -> Stream:
        stream = await self.connection.open(call)
        await stream.send(body)
        await stream.finish()
        return stream

    async def ask(self, call: ModelCall, body: bytes = BODY) -> bytes:
        return await read_all(await self.open(call, body))

    async def refusal(self, call: ModelCall, body: bytes = BODY) -> RetryElsewhere:
        with pytest.raises(RetryElsewhere) as refused:
            await self.ask(call, body)
        return refused.value

    @property
    def busy(self) -> bool:
        open_ = self.connection.streams and not self.connection.session.closed
        return bool(open_ or self.desk.tasks or self.serving.running)

    @property
    def receipts(self) -> list[Receipt]:
        return [read_receipt(item.receipt) for item in self.signed]

    @property
    def signed(self) -> list[SignedReceipt]:
        return [item for message in self.told if isinstance(message, Receipts) for item in message.items]

    @property
    def needs(self) -> list[int]:
        return [amount(message.cumulative) for message in self.told if isinstance(message, Need)]

    @property
    def slices(self) -> dict[Lane, Any]:
        return self.desk.till._shelf.slices


@dataclass
class Market:
    """An executor with its Workers, and a client of it."""

    books: Books
    owner: Identity
    client: Identity
    workers: list[Worker]
    quote: Quote
    orders: dict[bytes, tuple[ModelCall, Request]] = field(default_factory=dict)

    def call(self, cumulative: int | None, *, lane: int = 0, body: bytes = BODY, **changes: Any) -> ModelCall:
        salt = os.urandom(16)
        request = Request(
            quote_hash=quote_hash(self.quote),
            client=self.client.address,
            lane=lane,
            request_id=os.urandom(32),
            request_hash=request_hash(salt, "chat", "m", body),
            max_input_tokens=INPUTS + 10,
            max_output_tokens=512,
            max_cost=cost(self.quote, INPUTS + 10, 0, 512),
            deadline=int(time.time() + 60),
        )
        request = replace(request, **changes)
        encoded, _, signature = sign_request(request, self.client, DOMAIN)
        promised = None if cumulative is None else self.voucher(cumulative, lane)
        call = ModelCall(encoded, signature, salt, "m", "chat", DOMAIN.chain_id, promised)
        self.orders[request_digest(encoded, DOMAIN)] = call, request
        return call

    def voucher(self, cumulative: int, lane: int = 0, by: Identity | None = None) -> SignedVoucher:
        words = Voucher(self.client.address, self.owner.address, bytes(20), lane, cumulative, 0, voucher.usage_hash(()))
        return voucher.sign(words, (), (), by or self.client, DOMAIN)

    async def state(self, lane: int = 0) -> Receivable:
        key = Lane(self.client.address, bytes(20), lane)
        found = await self.books.writer.write(lambda db: lanes.load(db, key), 1)
        assert found is not None
        return found

    def check(self, signed: SignedReceipt, answer: bytes) -> Receipt:
        """The receipt, as a client checks it."""
        digest = read_receipt(signed.receipt).request_digest
        call, request = self.orders[digest]
        hashed = hashlib.sha256(call.salt + answer).digest()
        delivery = Delivery(request, digest, self.quote, hashed, len(answer))
        return check_receipt(signed, delivery, DOMAIN).receipt


@asynccontextmanager
async def market(
    path: Path,
    *script: Any,
    workers: int = 1,
    bank: FakeBank | None = None,
    credit_seconds: float = 60,
    credit: int = 0,
    request_seconds: float = 60,
    drain_seconds: float = 5,
    replay_bytes: int = 0,
    replay_seconds: float = 1,
) -> AsyncIterator[Market]:
    """In the end nothing may be left of any request, and what Workers believe must be what the books say."""
    client = Identity.generate()
    async with AsyncExitStack() as stack:
        owner = EXECUTOR
        ledger = await stack.enter_async_context(books(path, bank, credit))
        found: list[Worker] = []
        limits = accounting(credit_seconds=credit_seconds, report_seconds=0.01, window=WINDOW)
        for number in range(workers):
            engine = ScriptedEngine(script or (HELLO, WORLD, END), limits=Limits(64))
            desk = Desk(ledger, Holder(f"executor-worker-{number}", os.urandom(16)))
            till = desk.till = Till(DOMAIN, owner.address, limits, desk)
            tills = Tills([till])
            offered = {"m": (engine, replace(model("m"), parallel=64))}
            serving = Serving(
                replace(
                    SETTINGS,
                    requests_per_client=100,
                    request_seconds=request_seconds,
                    replay_bytes=replay_bytes,
                    replay_seconds=replay_seconds,
                ),
                settings(),
                Domain(),
                offered,
                _never,
                tills,
            )
            service = Service(
                owner.address, NETWORK, settings(drain_seconds=drain_seconds), serving.handle, tills.on_control
            )
            server = Executor(owner, await Listener.start("127.0.0.1", 0, certificate(owner), service))
            stack.push_async_callback(server.listener.close)
            run = asyncio.create_task(tills.run())
            stack.push_async_callback(_cancel, run)
            stack.push_async_callback(serving.close)
            told = Told()
            connection = await dialled(server, client, told)
            stack.push_async_callback(connection.close)
            found.append(Worker(serving, desk, engine, server, client, connection, told))
        ledger.recall = _recall(found)  # type: ignore[method-assign]
        offer = published(owner, found)
        subject = Market(ledger, owner, client, found, quote_of(offer, offer.models[0], offer.payments[0]))
        async with asyncio.timeout(60):
            yield subject
            await until(lambda: not any(worker.busy for worker in found))
            await until(lambda: not any(each.open for worker in found for each in worker.slices.values()))


def published(owner: Identity, workers: list[Worker]) -> Offer:
    offer = Offer(
        executor=owner.address,
        seq=1,
        expires=int(time.time() + 600),
        endpoints=(),
        models=(replace(model("m"), parallel=64),),
        software="test",
        payments=(payment(CHAIN),),
        window=WINDOW,
    )
    for worker in workers:
        worker.serving.book.publish(seal(offer, owner, NETWORK), offer, 0)
    return offer


async def dialled(server: Executor, client: Identity, told: list[Control]) -> Connection:
    endpoint = Endpoint("127.0.0.1", server.listener.port)
    link = Link(client, NETWORK, settings())
    return await dial(endpoint, server.identity.address, link, lambda _, message: told.append(message))


async def broken(stream: Stream) -> tuple[bytes, RetryElsewhere]:
    """What came of an answer before it was broken off, and why that was."""
    received = b""
    try:
        while (data := await stream.receive()) is not None:
            received += data
    except RetryElsewhere as error:
        return received, error
    raise AssertionError("the answer came whole")


def _never(_connection: Connection, _draft: Draft) -> None:
    raise AssertionError("nothing is free here")


def _recall(workers: list[Worker]) -> Callable[..., Any]:
    async def recall(holder: Holder, wanted: list[Lane]) -> list[Ask]:
        return next(worker.desk.till.recall(wanted) for worker in workers if worker.desk.holder == holder)

    return recall


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


# What is served


async def test_a_paid_request_is_served_and_its_receipt_says_what_it_cost(path: Path) -> None:
    async with market(path) as it:
        (worker,) = it.workers
        answer = await worker.ask(it.call(FIRST))
        await until(lambda: bool(worker.receipts))
        receipt = it.check(worker.signed[0], answer)
        assert (receipt.status, receipt.input_tokens, receipt.output_tokens) == (Status.COMPLETE, INPUTS, 2)
        assert receipt.cost == INPUTS * 3 + 2 * 5 == (await it.state()).charged
        assert next(iter(worker.slices.values())).free == FIRST - receipt.cost


async def test_on_a_warm_lane_content_comes_while_the_ledger_is_away(path: Path) -> None:
    async with market(path) as it:
        (worker,) = it.workers
        await worker.ask(it.call(3 * FIRST))
        worker.desk.there.clear()
        assert await worker.ask(it.call(4 * FIRST)) == HELLO + WORLD
        worker.desk.there.set()
        await until(lambda: len(worker.receipts) == 2)
        assert [receipt.lane_seq for receipt in worker.receipts] == [1, 2]
        await worker.desk.till.close()
        assert (await it.state()).vouched == 4 * FIRST


async def test_sixty_four_streams_on_one_lane(path: Path) -> None:
    async with market(path) as it:
        (worker,) = it.workers
        calls = [it.call((number + 1) * FIRST) for number in range(64)]
        answers = await asyncio.gather(*map(worker.ask, calls))
        assert set(answers) == {HELLO + WORLD}
        await until(lambda: len(worker.receipts) == 64)
        state = await it.state()
        assert state.charged == 64 * (INPUTS * 3 + 10) == worker.receipts[-1].lane_charged
        assert sorted(receipt.lane_seq for receipt in worker.receipts) == list(range(1, 65))
        assert state.owed <= state.vouched == 64 * FIRST


async def test_two_workers_on_one_lane_share_what_is_promised(path: Path) -> None:
    async with market(path, workers=2) as it:
        one, other = it.workers
        await one.ask(it.call(2 * FIRST))
        await until(lambda: bool(one.receipts))
        promised = one.receipts[0].cost + 2 * FIRST  # what was accepted, this request, and one ahead
        await other.ask(it.call(promised))
        await until(lambda: bool(other.receipts))
        assert other.receipts[0].lane_seq == 2
        again = await asyncio.gather(
            *(worker.ask(it.call(promised + (n + 1) * FIRST)) for n, worker in enumerate([one, other] * 8))
        )
        assert set(again) == {HELLO + WORLD}
        await until(lambda: len(one.receipts) + len(other.receipts) == 18)
        state = await it.state()
        assert state.charged == 18 * one.receipts[0].cost
        assert state.owed <= state.vouched


async def test_lost_repeated_and_reordered_vouchers_do_no_harm(path: Path) -> None:
    async with market(path) as it:
        (worker,) = it.workers
        await worker.ask(it.call(5 * FIRST))
        for cumulative in (6, 3, 6, 4):
            worker.connection.send_control(it.voucher(cumulative * FIRST))
        await worker.ask(it.call(None))
        await worker.ask(it.call(2 * FIRST))
        await worker.desk.till.close()
        assert (await it.state()).vouched == 6 * FIRST


async def test_a_lane_is_told_to_its_own_client(path: Path) -> None:
    async with market(path, credit=9) as it:
        (worker,) = it.workers
        call = it.call(FIRST)
        await worker.ask(call)
        await until(lambda: bool(worker.receipts))
        stream = await worker.connection.open(LaneCall(DOMAIN.chain_id, bytes(20), 0))
        await stream.finish()
        state = messages.decode(await read_all(stream), messages.decoder(LaneState))
        assert (amount(state.charged), state.seq, amount(state.credit_limit)) == (worker.receipts[0].cost, 1, 9)
        assert state.voucher == call.voucher
        assert list(state.receipts) == worker.signed


async def test_a_lane_that_the_ledger_does_not_tell_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Desk, "lane", stuck)
    async with market(path, request_seconds=0.05) as it:
        (worker,) = it.workers
        stream = await worker.connection.open(LaneCall(DOMAIN.chain_id, bytes(20), 0))
        with pytest.raises(RetryElsewhere) as refused:
            await stream.receive()
        assert kind(refused.value) == (RetryElsewhere, 504, "deadline")
        assert not worker.serving._clients.open


async def test_a_closing_voucher_is_taken_after_the_lane_was_given_back(path: Path) -> None:
    async with market(path) as it:
        (worker,) = it.workers
        await worker.ask(it.call(FIRST))
        await until(lambda: bool(worker.receipts))
        await until(lambda: not any(each.unbilled for each in worker.slices.values()))
        worker.desk.till.tidy(float("inf"))
        await until(lambda: not worker.slices)
        assert (await it.state()).owed == worker.receipts[0].cost
        worker.connection.send_control(it.voucher(2 * FIRST))
        await until(lambda: bool(worker.slices) and not next(iter(worker.slices.values())).voucher)
        assert (await it.state()).vouched == 2 * FIRST


# What is refused


async def test_who_has_not_paid_is_refused_before_anything_runs(path: Path) -> None:
    async with market(path) as it:
        (worker,) = it.workers
        for call in (it.call(None), it.call(FIRST - 1)):
            refused = await worker.refusal(call)
            assert kind(refused) == (RetryElsewhere, 402, "payment_required")
            assert f"voucher of {FIRST}" in str(refused)
        assert worker.engine.asked == []
        assert not worker.slices or next(iter(worker.slices.values())).open == 0


async def test_who_has_no_deposit_is_refused(path: Path) -> None:
    bank = FakeBank()
    async with market(path, bank=bank) as it:
        bank.money[it.client.address] = Funds(FIRST - 1, 0, 0)
        refused = await it.workers[0].refusal(it.call(10 * FIRST))
        assert kind(refused) == (RetryElsewhere, 402, "payment_required")
        assert "deposit" in str(refused)


async def test_a_request_for_another_chain_or_none_is_refused(path: Path) -> None:
    async with market(path) as it:
        (worker,) = it.workers
        refused = await worker.refusal(msgspec.structs.replace(it.call(FIRST), chain=1))
        assert kind(refused) == (RetryElsewhere, 402, "payment_required")
        free = it.call(FIRST)
        encoded, _, signature = sign_request(it.orders[list(it.orders)[-1]][1], it.client, Domain())
        refused = await worker.refusal(msgspec.structs.replace(free, request=encoded, signature=signature, chain=0))
        assert kind(refused) == (RetryElsewhere, 502, "quote")
        assert worker.engine.asked == []


async def test_a_voucher_that_is_none_is_the_clients_fault(path: Path) -> None:
    async with market(path) as it:
        (worker,) = it.workers
        call = msgspec.structs.replace(it.call(None), voucher=it.voucher(FIRST, by=Identity.generate()))
        refused = await worker.refusal(call)
        assert kind(refused) == (RetryElsewhere, 502, "bad_signature")
        other = await dialled(worker.executor, it.client, [])
        other.send_control(it.voucher(FIRST, by=Identity.generate()))
        await other.closed.wait()


async def test_a_voucher_counts_whatever_became_of_the_request_that_it_came_with(path: Path) -> None:
    async with market(path) as it:
        (worker,) = it.workers
        refused = await worker.refusal(msgspec.structs.replace(it.call(FIRST), model="none"))
        assert refused.code == "model_not_found"
        assert await worker.ask(it.call(None)) == HELLO + WORLD


def told(**fields: Any) -> bytes:
    return msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "Say hello."}], **fields})


async def test_who_orders_a_shorter_prompt_than_is_sent_is_refused(path: Path) -> None:
    async with market(path) as it:
        (worker,) = it.workers
        refused = await worker.refusal(it.call(FIRST, max_input_tokens=INPUTS - 1))
        assert kind(refused) == (RetryElsewhere, 402, "ordered")
        assert f"allows {INPUTS - 1} tokens of a prompt, and has {INPUTS}" in str(refused)
        assert worker.engine.asked == []


async def test_a_prompt_that_counts_for_more_than_the_context_is_paid_as_far_as_that(path: Path) -> None:
    film = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + "A" * 10_000}}
    body = told(messages=[{"role": "user", "content": [film]}])
    async with market(path) as it:
        (worker,) = it.workers
        costs = cost(it.quote, 2048, 0, 1)
        terms = {"max_input_tokens": 2048, "max_output_tokens": 1, "max_cost": costs}
        assert await worker.ask(it.call(costs, body=body, **terms), body) == HELLO + WORLD


@pytest.mark.parametrize(
    ("ordered", "asked", "limit"),
    [
        (10, {}, {"max_tokens": 10}),
        (10, {"max_tokens": None}, {"max_tokens": 10}),
        (10, {"max_tokens": 512}, {"max_tokens": 10}),
        (10, {"max_completion_tokens": 512}, {"max_completion_tokens": 10}),
        (10, {"max_tokens": 5, "max_completion_tokens": 512}, {"max_tokens": 5, "max_completion_tokens": 10}),
        (10, {"max_tokens": 10}, {"max_tokens": 10}),
        (10, {"max_tokens": 10, "n": 3}, {"max_tokens": 3, "n": 3}),
        (512, {"n": 2}, {"max_tokens": 256, "n": 2}),
        (512, {}, {}),
        (512, {"n": 1}, {"n": 1}),
    ],
)
async def test_no_answer_is_longer_than_was_ordered(
    path: Path, ordered: int, asked: dict[str, Any], limit: dict[str, int]
) -> None:
    body = told(**asked)
    async with market(path) as it:
        (worker,) = it.workers
        await worker.ask(it.call(10 * FIRST, body=body, max_output_tokens=ordered), body)
        ((_, sent),) = worker.engine.asked
        assert msgspec.json.decode(sent) == {**msgspec.json.decode(told()), **limit}


@pytest.mark.parametrize("asked", [{"n": 2}, {"n": 2, "max_tokens": 1}])
async def test_who_orders_less_than_a_token_for_each_answer_is_refused(path: Path, asked: dict[str, Any]) -> None:
    body = told(**asked)
    async with market(path) as it:
        (worker,) = it.workers
        refused = await worker.refusal(it.call(FIRST, body=body, max_output_tokens=1), body)
        assert kind(refused) == (RetryElsewhere, 402, "ordered")
        assert worker.engine.asked == []


@pytest.mark.parametrize("n", ["128", True, 1.5, 0, -1])
async def test_who_says_how_many_answers_in_a_way_that_only_backends_may_read_is_refused(path: Path, n: Any) -> None:
    body = told(n=n)
    async with market(path) as it:
        with pytest.raises(CallerFault, match="n must be"):
            await it.workers[0].ask(it.call(FIRST, body=body), body)
        assert it.workers[0].engine.asked == []


@pytest.mark.parametrize("words", [" word", "word " * 400])
async def test_a_backend_that_knows_no_limit_is_stopped(path: Path, words: str) -> None:
    async with market(path, *[chunk(words)] * 2000, END) as it:
        (worker,) = it.workers
        received, ended = await broken(await worker.open(it.call(FIRST, max_output_tokens=WINDOW)))
        assert kind(ended) == (RetryElsewhere, 402, "payment_required")
        assert len(received) < 512 * (WINDOW + 8) + 2 * len(chunk(words))
        await until(lambda: bool(worker.receipts))
        receipt = it.check(worker.signed[0], received)
        assert (receipt.status, receipt.output_tokens) == (Status.UNPAID, WINDOW)


async def test_an_answer_of_large_events_is_as_long_as_was_ordered(path: Path) -> None:
    wide = event(b'{"choices":[{"delta":{"content":" word"},"logprobs":"%s"}]}' % (b"x" * 4000))
    async with market(path, *[wide] * WINDOW, END) as it:
        (worker,) = it.workers
        assert await worker.ask(it.call(FIRST, max_output_tokens=WINDOW)) == wide * WINDOW


async def test_an_answer_may_repeat_its_prompt(path: Path) -> None:
    prompt = chunk("word " * 2000)
    async with market(path, prompt, END) as it:
        (worker,) = it.workers
        assert await worker.ask(it.call(FIRST, max_input_tokens=2000, max_output_tokens=1)) == prompt


async def test_a_request_that_is_made_twice_is_served_once(path: Path) -> None:
    async with market(path, workers=2) as it:
        one, other = it.workers
        call = it.call(4 * FIRST)
        await one.ask(call)
        assert kind(await one.refusal(call)) == (RetryElsewhere, 409, "replayed")
        await other.ask(call)  # nobody told this Worker
        await until(lambda: bool(one.receipts and other.receipts))
        assert one.signed == other.signed
        state = await it.state()
        assert (state.charged, state.doubled) == (one.receipts[0].cost, one.receipts[0].cost)
        lost("one request made at two Workers", state.doubled, one.receipts[0].cost)


async def test_a_debt_blocks_a_new_lane_until_it_is_paid(path: Path) -> None:
    usage = event(b'{"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":30,"total_tokens":99}}' % INPUTS)
    async with market(path, *[WORD] * 5, usage, END) as it:
        (worker,) = it.workers
        await worker.ask(it.call(FIRST))
        await until(lambda: bool(worker.receipts))
        debt = worker.receipts[0].cost
        assert debt > FIRST
        # What a backend counts beyond our own count is known at the end only.
        lost("a new lane instead of a debt", debt - FIRST, (30 - 5) * 5)
        refused = await worker.refusal(it.call(10 * FIRST, lane=1))
        assert kind(refused) == (RetryElsewhere, 402, "payment_required")
        assert "You owe" in str(refused)
        worker.connection.send_control(it.voucher(debt))
        first, *_ = worker.slices.values()
        await until(lambda: first.best[0] == debt and not (first.voucher or first.in_flight))
        await worker.ask(it.call(100 * FIRST, lane=1))


# What happens on the way


async def test_a_long_answer_goes_on_as_it_is_paid(path: Path) -> None:
    async with market(path, *[WORD] * 100, END) as it:
        (worker,) = it.workers
        worker.told.on_need = lambda need: worker.connection.send_control(it.voucher(need))
        received = await worker.ask(it.call(FIRST))
        assert received == WORD * 100
        await until(lambda: bool(worker.receipts))
        receipt = it.check(worker.signed[0], received)
        assert (receipt.status, receipt.output_tokens) == (Status.COMPLETE, 100)
        assert len(worker.needs) >= 8
        assert receipt.cost <= worker.needs[-1] <= receipt.cost + 2 * WINDOW * 5


async def test_an_answer_that_nobody_pays_is_ended_and_billed_as_far_as_it_came(path: Path) -> None:
    async with market(path, *[WORD] * 100, END, credit_seconds=1) as it:
        (worker,) = it.workers
        received, ended = await broken(await worker.open(it.call(FIRST)))
        assert kind(ended) == (RetryElsewhere, 402, "payment_required")
        assert received == WORD * WINDOW
        await until(lambda: bool(worker.receipts))
        receipt = it.check(worker.signed[0], received)
        assert (receipt.status, receipt.output_tokens, receipt.cost) == (Status.UNPAID, WINDOW, FIRST)
        assert FIRST < worker.needs[0] <= FIRST + (WINDOW + 1) * 5
        state = await it.state()
        assert state.owed == state.vouched == FIRST
        lost("a client that stops paying, without credit", state.owed - state.vouched, 0)


async def test_what_a_backend_reports_with_the_part_that_was_held_back_is_not_billed(path: Path) -> None:
    usage = event(b'{"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":11,"total_tokens":99}}' % INPUTS)
    async with market(path, *[WORD] * WINDOW, WORD + usage, END, credit_seconds=0.05) as it:
        (worker,) = it.workers
        received, _ = await broken(await worker.open(it.call(FIRST)))
        assert received == WORD * WINDOW
        await until(lambda: bool(worker.receipts))
        assert it.check(worker.signed[0], received).output_tokens == WINDOW


async def test_credit_is_all_that_is_lost_on_a_client_that_stops_paying(path: Path) -> None:
    async with market(path, *[WORD] * 400, END, credit_seconds=1, credit=200) as it:
        (worker,) = it.workers
        with pytest.raises(RetryElsewhere):
            await worker.ask(it.call(FIRST))
        await until(lambda: bool(worker.receipts))
        state = await it.state()
        assert state.owed - state.vouched == 200
        lost("a client that stops paying", state.owed - state.vouched, 200)
        assert kind(await worker.refusal(it.call(None, lane=1))) == (RetryElsewhere, 402, "payment_required")


async def test_events_that_hold_many_tokens_are_counted_before_they_are_given_away(path: Path) -> None:
    large = chunk("word " * 400)
    async with market(path, HELLO, large, END, credit_seconds=0.05) as it:
        (worker,) = it.workers
        received, _ = await broken(await worker.open(it.call(FIRST)))
        assert received == HELLO


@pytest.mark.parametrize("words", ["word " * 20, "1 " * 20, "\N{GRINNING FACE}\u0e01" * 9])
async def test_no_token_too_many_is_sent_where_events_hold_several(path: Path, words: str) -> None:
    async with market(path, *[chunk(words)] * 20, END, credit_seconds=1, credit=500) as it:
        (worker,) = it.workers
        received, ended = await broken(await worker.open(it.call(FIRST)))
        assert kind(ended) == (RetryElsewhere, 402, "payment_required")
        assert received
        await until(lambda: bool(worker.receipts))
        state = await it.state()
        lost("a client that stops paying amid events of several tokens", state.owed - state.vouched, 500)
        assert state.owed - state.vouched > 500 - 5 * tokens.count(words, "o200k_base"), (
            "nothing that is covered is held back"
        )


async def test_events_that_are_no_tokens_cost_nothing_in_the_end(path: Path) -> None:
    empty = chunk("")
    async with market(path, *[empty] * 200, HELLO, END, credit_seconds=0.05) as it:
        (worker,) = it.workers
        assert (await worker.ask(it.call(FIRST))).endswith(HELLO)
        await until(lambda: bool(worker.receipts))
        assert worker.receipts[0].output_tokens == 1


async def test_a_cancel_gives_back_what_was_drawn(path: Path) -> None:
    async with market(path, HELLO, HANG) as it:
        (worker,) = it.workers
        stream = await worker.open(it.call(FIRST))
        assert await stream.receive() == HELLO
        await worker.engine.hung.wait()
        stream.cancel()
        await until(lambda: bool(worker.receipts))
        receipt = it.check(worker.signed[0], HELLO)
        assert (receipt.status, receipt.cost) == (Status.CANCELLED, INPUTS * 3 + 5)
        assert next(iter(worker.slices.values())).free == FIRST - receipt.cost


async def test_who_always_says_that_nothing_arrived_pays_for_what_was_sent(path: Path) -> None:
    async with market(path, *[WORD] * 30, HANG) as it:
        (worker,) = it.workers
        for number in range(1, 5):
            worker.engine.hung.clear()
            stream = await worker.open(it.call(number * 10 * FIRST))
            while stream.received < len(WORD) * 30:
                await stream.receive()
            await worker.engine.hung.wait()
            worker.connection.session._streams.find(2 * number - 1).received = 0
            stream.cancel()
            await until(lambda number=number: len(worker.receipts) == number)  # type: ignore[misc]
        billed = [receipt.output_tokens for receipt in worker.receipts]
        assert billed == [0, 0, 30, 30]
        lost("answers that are said not to have arrived", (4 * 30 - sum(billed)) * 5, 8 * WINDOW * 5)


async def test_who_hangs_up_before_the_end_again_and_again_pays_all_the_same(path: Path) -> None:
    async with market(path, *[WORD] * 30, HANG) as it:
        (worker,) = it.workers
        for number in range(1, 4):
            worker.engine.hung.clear()
            told = Told()
            connection = await dialled(worker.executor, it.client, told)
            stream = await connection.open(it.call(number * 10 * FIRST))
            await stream.send(BODY)
            await stream.finish()
            await worker.engine.hung.wait()
            connection.wire.abort()
            await until(lambda: not (worker.serving.running or worker.desk.tasks))
        state = await it.books.receivables.lane(it.client.address, LaneCall(DOMAIN.chain_id, bytes(20), 0))
        receipts = [read_receipt(item.receipt) for item in state.receipts]
        assert [(receipt.status, receipt.output_tokens) for receipt in receipts] == [
            (Status.FAILED, 0),
            (Status.FAILED, 0),
            (Status.CANCELLED, 30),
        ]


async def test_who_lets_the_time_run_out_again_and_again_pays_all_the_same(path: Path) -> None:
    leap = leaping()
    async with market(path, *[WORD] * 30, HANG, request_seconds=9) as it:
        (worker,) = it.workers
        for number in range(1, 4):
            worker.engine.hung.clear()
            stream = await worker.open(it.call(number * 10 * FIRST))
            await worker.engine.hung.wait()
            leap(9)
            _, ended = await broken(stream)
            assert kind(ended) == (RetryElsewhere, 504, "deadline")
        await until(lambda: len(worker.receipts) == 3)
        assert [receipt.output_tokens for receipt in worker.receipts] == [0, 0, 30]
        assert it.check(worker.signed[2], WORD * 30).status == Status.CANCELLED


async def test_who_is_sent_away_pays_nothing_for_what_was_cut(path: Path) -> None:
    async with market(path, *[WORD] * 300, HANG, drain_seconds=0.05) as it:
        (worker,) = it.workers
        stream = await worker.open(it.call(10**6))
        await worker.engine.hung.wait()
        await worker.executor.listener.close()
        await broken(stream)
        await until(lambda: not worker.desk.tasks)
        assert (await it.state()).charged == 0


async def test_a_lie_about_the_bytes_that_arrived_is_billed_in_full(path: Path) -> None:
    blocks = [chunk("word " * 12_000) for _ in range(12)]
    async with market(path, *blocks, HANG) as it:
        (worker,) = it.workers
        stream = await worker.open(it.call(10**9, max_output_tokens=10**6, max_cost=10**9))
        while stream.received < sum(map(len, blocks)):
            await stream.receive()
        await worker.engine.hung.wait()
        worker.connection.session._streams.find(1).received = 0
        stream.cancel()
        await until(lambda: bool(worker.receipts))
        assert worker.receipts[0].response_bytes == sum(map(len, blocks))
        assert worker.receipts[0].cost > FIRST


BEGINNING = event(b'{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}')
"""Of an answer; it says nothing."""


async def test_who_was_sent_a_beginning_only_pays_nothing_for_what_one_event_holds_too_much(path: Path) -> None:
    async with market(path, BEGINNING, chunk("word " * 400), END, credit_seconds=0.05) as it:
        (worker,) = it.workers
        received, ended = await broken(await worker.open(it.call(FIRST)))
        assert (received, kind(ended)) == (BEGINNING, (RetryElsewhere, 402, "payment_required"))
        await until(lambda: bool(worker.receipts))
        receipt = it.check(worker.signed[0], received)
        assert (receipt.status, receipt.cost) == (Status.FAILED, 0)


async def test_who_was_sent_a_beginning_only_pays_nothing_when_our_time_is_over(path: Path) -> None:
    leap = leaping()
    async with market(path, BEGINNING, HANG, request_seconds=9) as it:
        (worker,) = it.workers
        worker.desk.till.forgive = lambda *_: False  # type: ignore[method-assign] # it has cancelled often
        stream = await worker.open(it.call(FIRST))
        await worker.engine.hung.wait()
        leap(9)
        received, ended = await broken(stream)
        assert (received, kind(ended)) == (BEGINNING, (RetryElsewhere, 504, "deadline"))
        await until(lambda: bool(worker.receipts))
        receipt = it.check(worker.signed[0], received)
        assert (receipt.status, receipt.cost) == (Status.FAILED, 0)


async def test_who_leaves_after_a_beginning_pays_for_the_prompt(path: Path) -> None:
    async with market(path, BEGINNING, HANG) as it:
        (worker,) = it.workers
        stream = await worker.open(it.call(FIRST))
        assert await stream.receive() == BEGINNING
        stream.cancel()
        await until(lambda: bool(worker.receipts))
        receipt = it.check(worker.signed[0], BEGINNING)
        assert (receipt.status, receipt.cost) == (Status.CANCELLED, INPUTS * 3)


@pytest.mark.parametrize(
    "script", [(RetryElsewhere("down"),), (HELLO, RetryElsewhere("down")), (BEGINNING, RetryElsewhere("down"))]
)
async def test_what_fails_costs_nothing(path: Path, script: tuple[Any, ...]) -> None:
    async with market(path, *script) as it:
        (worker,) = it.workers
        await worker.refusal(it.call(FIRST))
        await until(lambda: not worker.desk.tasks)
        assert next(iter(worker.slices.values())).free == FIRST
        assert (await it.state()).charged == 0


async def test_who_leaves_in_the_queue_takes_nothing_along(path: Path) -> None:
    async with market(path, HELLO, HANG) as it:
        (worker,) = it.workers
        worker.engine.limits = Limits(1)
        first = await worker.open(it.call(FIRST))
        await worker.engine.hung.wait()
        second = await worker.open(it.call(2 * FIRST))
        await until(lambda: worker.serving._gates["scripted"]._waiting == 1)
        second.cancel()
        (slice_,) = worker.slices.values()
        await until(lambda: slice_.open == FIRST)
        first.cancel()


async def test_a_worker_that_dies_leaves_its_lease_to_its_next_life(path: Path) -> None:
    async with market(path) as it:
        (worker,) = it.workers
        await worker.ask(it.call(FIRST))
        await until(lambda: bool(worker.receipts))
        dead, reborn = worker.desk.holder, Holder(worker.desk.holder.name, os.urandom(16))
        left = (await it.state()).lease(dead).open
        assert left == FIRST - worker.receipts[0].cost
        await it.books.receivables.enlist(reborn)
        ask = Ask(lane=(await it.state()).lane, number=1, least=left, fresh=True)
        (grant,) = await it.books.receivables.lend(reborn, [ask])
        assert (grant.granted, grant.short) == (left, 0)


def test_payments_of_an_offer_name_the_contract() -> None:
    assert payment(CHAIN) == Payment(CHAIN.id, DOMAIN.contract, bytes(20), CHAIN.rate)
