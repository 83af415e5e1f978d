"""A Worker's counter behind a real bridge: what is served, what is refused, what is billed, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import pytest
from loguru import logger
from msgspec.structs import replace

from lloom.adapters.bridge import Connection, Link, Stream, dial
from lloom.adapters.serving import Serving
from lloom.adapters.serving.audit import Audit
from lloom.adapters.serving.gate import Gate
from lloom.core import tokens
from lloom.core.api.request import Operation
from lloom.core.billing.quote import Quote, cost, quote_hash, quote_of
from lloom.core.billing.receipt import Draft, Status
from lloom.core.billing.request import Request, request_hash, sign_request
from lloom.core.eip712 import Domain
from lloom.core.errors import CallerFault, LloomError, RetryElsewhere
from lloom.core.identity import Identity
from lloom.core.lineup import Lineup, Served
from lloom.core.messages import Done, ModelCall, OfferCall
from lloom.core.offer import Endpoint, ModelOffer, Offer, seal, unseal
from lloom.core.rates import Limits
from lloom.core.settings import ExecutorSettings, Resources
from lloom.core.sse import event
from tests.integration.bridge_support import NETWORK, Executor, executor, read_all, settings, until
from tests.integration.clock_support import leaping
from tests.money_support import accounting

SETTINGS = ExecutorSettings(
    workers=1,
    worker=Resources(num_cpus=0, num_gpus=0),
    max_body=100_000,
    bodies=1 << 28,
    queue=1,
    queue_seconds=60,
    request_seconds=60,
    requests_per_client=8,
    replay_bytes=0,
    replay_seconds=1,
    discovery_seconds=60,
    discovered_models=16,
)
BODY = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "Say hello."}]})
USAGE = b'{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9,"prompt_tokens_details":{"cached_tokens":1}}'
HANG = asyncio.Event
"""In a script: nothing comes any more."""


def chunk(text: str) -> bytes:
    return event(msgspec.json.encode({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}))


HELLO, WORLD = chunk("Hello"), chunk(" world")
USAGE_CHUNK = event(b'{"choices":[],"usage":%s}' % USAGE)
END = event(b"[DONE]")
WELL: tuple[Any, ...] = (HELLO, WORLD + USAGE_CHUNK, END)


@dataclass
class ScriptedEngine:
    """Plays `script` for every request: bytes come, exceptions are raised, HANG waits for ever."""

    script: tuple[Any, ...] = WELL
    name: str = "scripted"
    limits: Limits = field(default_factory=lambda: Limits(parallel=1))
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    open: int = 0
    hung: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None: ...

    async def look(self) -> Lineup:
        return Lineup({"m": Served("m", model("m"))})

    async def stream(self, operation: Operation, model: str, body: bytes) -> AsyncGenerator[bytes, None]:
        self.asked.append((model, body))
        self.open += 1
        try:
            for part in self.script:
                if isinstance(part, Exception):
                    raise part
                if part is HANG:
                    self.hung.set()
                    await asyncio.Event().wait()
                yield part
        finally:
            self.open -= 1
            self.closed.set()

    async def close(self) -> None: ...


def model(name: str) -> ModelOffer:
    return ModelOffer(
        id=name,
        context=2048,
        max_output=512,
        parallel=1,
        encoding="o200k_base",
        backend="scripted",
        input_price=3_000_000,
        output_price=5_000_000,
    )


@dataclass
class Counter:
    """A counter that is open, its one client, and the drafts it wrote."""

    serving: Serving
    engine: ScriptedEngine
    executor: Executor
    client: Identity
    connection: Connection
    drafts: list[Draft] = field(default_factory=list)
    seq: int = 0
    others: int = 0
    """Streams that a test holds open itself."""

    def publish(self, seconds: float = 600) -> Offer:
        """A new offer of two models, both of the one engine."""
        self.seq += 1
        owner = self.executor.identity
        offer = Offer(
            executor=owner.address,
            seq=self.seq,
            expires=int(time.time() + seconds),
            endpoints=(self.executor.endpoint,),
            models=(model("m"), model("other")),
            software="test",
        )
        self.serving.book.publish(seal(offer, owner, NETWORK), offer, 0)
        return offer

    def quote(self, offer: Offer, name: str = "m") -> Quote:
        found = offer.model(name)
        assert found is not None
        return quote_of(offer, found)

    def call(
        self,
        quote: Quote,
        *,
        model: str = "m",
        body: bytes = BODY,
        seconds: float = 60,
        signer: Identity | None = None,
        **changes: Any,
    ) -> ModelCall:
        """A signed order of `body`."""
        signer = signer or self.client
        salt = os.urandom(16)
        request = Request(
            quote_hash=quote_hash(quote),
            client=signer.address,
            lane=0,
            request_id=os.urandom(32),
            request_hash=request_hash(salt, "chat", model, body),
            max_input_tokens=2048,
            max_output_tokens=512,
            max_cost=cost(quote, 2048, 0, 512),
            deadline=int(time.time() + seconds),
        )
        encoded, _, signature = sign_request(replace(request, **changes), signer, Domain())
        return ModelCall(encoded, signature, salt, model)

    async def occupy(self, call: ModelCall) -> Stream:
        """A call that holds the one place: the engine's script has to HANG."""
        stream = await self.open(call)
        await self.engine.hung.wait()
        self.others += 1
        return stream

    async def open(self, call: ModelCall, body: bytes = BODY) -> Stream:
        stream = await self.connection.open(call)
        await stream.send(body)
        await stream.finish()
        return stream

    async def ask(self, call: ModelCall, body: bytes = BODY) -> tuple[bytes, Done]:
        stream = await self.open(call, body)
        answer = await read_all(stream)
        assert stream.done is not None
        return answer, stream.done

    async def refusal(self, call: ModelCall, body: bytes = BODY) -> LloomError:
        """What a call is refused with, while another stream of the connection lives on."""
        bystander = await self.connection.open(self.call(self.quote(self.publish())))
        with pytest.raises(LloomError) as refused:
            await self.ask(call, body)
        await bystander.send(b"still heard")
        assert self.connection.streams == self.others + 1
        bystander.cancel()
        return refused.value

    @property
    def idle(self) -> bool:
        return not (self.serving.running or self.serving._clients.open or self.engine.open or self.connection.streams)


@asynccontextmanager
async def opened(*script: Any, **changes: Any) -> AsyncIterator[Counter]:
    """A counter whose engine plays `script`. In the end nothing may be left of any request."""
    engine = ScriptedEngine(script or WELL)
    drafts: list[Draft] = []
    offered = {name: (engine, model(name)) for name in ("m", "other")}
    serving = Serving(
        replace(SETTINGS, **changes), settings(), Domain(), offered, lambda _, draft: drafts.append(draft)
    )
    client = Identity.generate()
    async with asyncio.timeout(60), executor(serving.handle) as server:
        connection = await dialled(server, client)
        found = Counter(serving, engine, server, client, connection, drafts)
        yield found
        await until(lambda: found.idle)
        assert not any(gate.running or gate._waiting for gate in serving._gates.values())
        # Every place can be had again.
        assert not any(gate._free.locked() for gate in serving._gates.values())
        assert not serving._bodies.held
        await connection.close()
        await serving.close()
    gc.collect()


async def dialled(server: Executor, client: Identity) -> Connection:
    endpoint = Endpoint("127.0.0.1", server.listener.port)
    return await dial(endpoint, server.identity.address, Link(client, NETWORK, settings()), lambda _, __: None)


def kind(error: LloomError) -> tuple[type[LloomError], int, str | None]:
    assert isinstance(error, RetryElsewhere | CallerFault)
    return type(error), error.status, error.code


# What is served


async def test_the_offer_is_handed_out_sealed() -> None:
    async with opened() as counter:
        offer = counter.publish()
        stream = await counter.connection.open(OfferCall())
        await stream.finish()
        sealed = await read_all(stream)
        assert unseal(sealed, counter.executor.identity.address, NETWORK, time.time()) == offer


@pytest.mark.parametrize("seconds", [None, -1])
async def test_without_an_offer_that_holds_nobody_is_blamed(seconds: float | None) -> None:
    async with opened() as counter:
        if seconds is not None:
            counter.publish(seconds)
        stream = await counter.connection.open(OfferCall())
        await stream.finish()
        with pytest.raises(RetryElsewhere) as refused:
            await stream.receive()
        assert kind(refused.value) == (RetryElsewhere, 503, "starting")


async def test_a_chat_passes_and_its_receipt_says_exactly_what_was_delivered() -> None:
    async with opened() as counter:
        quote = counter.quote(counter.publish())
        call = counter.call(quote)
        answer, done = await counter.ask(call)
        assert answer == HELLO + WORLD
        assert done == Done(7, 2, USAGE)
        assert counter.engine.asked == [("m", BODY)]
        [draft] = counter.drafts
        assert draft.status is Status.COMPLETE
        assert draft.response_hash == hashlib.sha256(call.salt + answer).digest()
        assert (draft.response_bytes, draft.input_tokens, draft.output_tokens) == (len(answer), 7, 2)
        assert draft.cost == 7 * 3 + 2 * 5
        assert draft.lane.client == counter.client.address
        assert draft.model == quote.model
        assert counter.serving.served == 1


async def test_where_the_backend_does_not_count_we_do() -> None:
    async with opened(HELLO, WORLD, END) as counter:
        answer, done = await counter.ask(counter.call(counter.quote(counter.publish())))
        inputs = tokens.count_messages([{"role": "user", "content": "Say hello."}], [], "o200k_base")
        outputs = tokens.count("Hello world", "o200k_base")
        assert answer == HELLO + WORLD
        assert (done.input_tokens, done.output_tokens) == (inputs, outputs)
        assert msgspec.json.decode(done.usage)["total_tokens"] == inputs + outputs
        [draft] = counter.drafts
        assert (draft.input_tokens, draft.output_tokens) == (inputs, outputs)
        assert draft.cost == inputs * 3 + outputs * 5


async def test_a_prompt_that_cannot_be_counted_is_billed_by_its_bytes() -> None:
    body = b'{"messages": "not a list, but the backend took it"}'
    async with opened(HELLO, END) as counter:
        _, done = await counter.ask(counter.call(counter.quote(counter.publish()), body=body), body)
        assert done.input_tokens == len(body) // 4


async def test_no_more_is_billed_than_was_ordered() -> None:
    async with opened() as counter:
        quote = counter.quote(counter.publish())
        _, done = await counter.ask(counter.call(quote, max_input_tokens=5, max_output_tokens=1))
        assert (done.input_tokens, done.output_tokens) == (7, 2)
        [draft] = counter.drafts
        assert (draft.input_tokens, draft.output_tokens, draft.cost) == (5, 1, 5 * 3 + 1 * 5)


async def test_a_clock_that_is_set_back_ends_no_request_before_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(HELLO, HANG) as counter:
        call = counter.call(counter.quote(counter.publish()))
        stream = await counter.open(call)
        await counter.engine.hung.wait()
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now - 3600)
        monkeypatch.setattr(time, "time_ns", lambda: int((now - 3600) * 1e9))
        stream.cancel()
        await until(lambda: counter.idle)
        [draft] = counter.drafts
        assert draft.started_at <= draft.finished_at


async def test_old_quotes_are_honoured_until_they_expire() -> None:
    async with opened() as counter:
        first = counter.quote(counter.publish())
        second = counter.quote(counter.publish())
        for quote in (first, second):
            await counter.ask(counter.call(quote))
        assert counter.serving.served == 2


async def test_expired_quotes_are_forgotten_with_the_next_offer() -> None:
    async with opened() as counter:
        counter.publish(-1)
        offer = counter.publish()
        counter.serving.book.publish(b"", offer, time.time())
        assert len(counter.serving.book._terms) == len(offer.models)


async def test_one_after_the_other_gets_the_one_place() -> None:
    async with opened() as counter:
        quote = counter.quote(counter.publish())
        for _ in range(3):
            await counter.ask(counter.call(quote))
        assert len(counter.drafts) == 3


# What is refused


async def test_an_unknown_or_expired_quote_asks_for_the_offer_again() -> None:
    async with opened() as counter:
        expired = counter.quote(counter.publish(-1))
        unknown = replace(counter.quote(counter.publish()), seq=99)
        for quote in (expired, unknown):
            assert kind(await counter.refusal(counter.call(quote))) == (RetryElsewhere, 409, "quote")
        assert counter.engine.asked == []


async def test_a_quote_of_another_model_is_refused() -> None:
    async with opened() as counter:
        quote = counter.quote(counter.publish(), "other")
        assert kind(await counter.refusal(counter.call(quote))) == (RetryElsewhere, 502, "quote")


async def test_an_unknown_model_is_refused() -> None:
    async with opened() as counter:
        call = counter.call(counter.quote(counter.publish()), model="unheard-of")
        assert kind(await counter.refusal(call)) == (RetryElsewhere, 404, "model_not_found")


async def test_what_a_model_is_not_offered_for_is_refused() -> None:
    async with opened() as counter:
        call = replace(counter.call(counter.quote(counter.publish())), operation="embeddings")
        assert kind(await counter.refusal(call)) == (RetryElsewhere, 404, "operation")
        assert not counter.engine.asked


async def test_a_request_that_somebody_else_signed_is_refused() -> None:
    async with opened() as counter:
        quote = counter.quote(counter.publish())
        theirs = counter.call(quote, signer=Identity.generate())
        forged = counter.call(quote, client=Identity.generate().address)
        for call in (theirs, forged):
            assert kind(await counter.refusal(call)) == (RetryElsewhere, 502, "bad_signature")


async def test_a_body_that_is_not_the_signed_one_is_refused() -> None:
    async with opened() as counter:
        call = counter.call(counter.quote(counter.publish()))
        assert kind(await counter.refusal(call, BODY + b" ")) == (RetryElsewhere, 502, "bad_request_hash")
        assert counter.engine.asked == []


async def test_a_body_over_the_limit_is_refused_before_it_has_come_whole() -> None:
    async with opened() as counter:
        call = counter.call(counter.quote(counter.publish()))
        stream = await counter.connection.open(call)
        await stream.send(bytes(SETTINGS.max_body + 1))
        with pytest.raises(CallerFault) as refused:
            await stream.receive()
        assert kind(refused.value) == (CallerFault, 413, "request_too_large")
        await counter.ask(counter.call(counter.quote(counter.publish())))


async def test_bodies_that_do_not_come_to_an_end_leave_room_for_small_ones() -> None:
    async with opened(bodies=4 * SETTINGS.max_body) as counter:
        quote = counter.quote(counter.publish())
        large = [await counter.connection.open(counter.call(quote)) for _ in range(4)]
        for stream in large:
            await stream.send(bytes(SETTINGS.max_body))
        with pytest.raises(RetryElsewhere) as refused:
            await large[3].receive()
        assert kind(refused.value) == (RetryElsewhere, 429, "busy")
        await counter.ask(counter.call(quote))
        for stream in large:
            stream.cancel()


async def test_a_request_is_served_once_whoever_sends_it_again() -> None:
    async with opened() as counter:
        call = counter.call(counter.quote(counter.publish()))
        await counter.ask(call)
        assert kind(await counter.refusal(call)) == (RetryElsewhere, 409, "replayed")
        assert len(counter.drafts) == 1


async def test_a_request_whose_deadline_is_far_away_is_refused_and_not_remembered() -> None:
    async with opened() as counter:
        call = counter.call(counter.quote(counter.publish()), seconds=3_600 + 120 + 60)
        for _ in range(2):  # a name that is remembered could not be asked for again
            assert kind(await counter.refusal(call)) == (CallerFault, 400, "deadline")
        await counter.ask(counter.call(counter.quote(counter.publish()), seconds=3_600))


async def test_a_request_past_its_deadline_is_refused() -> None:
    async with opened() as counter:
        call = counter.call(counter.quote(counter.publish()), seconds=-1)
        assert kind(await counter.refusal(call)) == (RetryElsewhere, 504, "deadline")


async def test_a_full_queue_refuses_and_those_in_it_come_on() -> None:
    async with opened(HELLO, HANG) as counter:
        quote = counter.quote(counter.publish())
        served = await counter.occupy(counter.call(quote))
        waiting = await counter.open(counter.call(quote))
        counter.others += 1
        await until(lambda: counter.serving._gates["scripted"]._waiting == 1)
        refused = await counter.refusal(counter.call(quote))
        assert kind(refused) == (RetryElsewhere, 429, "busy")
        assert isinstance(refused, RetryElsewhere)
        assert refused.retry_after == 1
        counter.engine.script = WELL
        served.cancel()
        assert await read_all(waiting) == HELLO + WORLD


async def test_a_queue_that_does_not_move_refuses() -> None:
    async with opened(HELLO, HANG, queue_seconds=0.01) as counter:
        quote = counter.quote(counter.publish())
        served = await counter.occupy(counter.call(quote))
        assert kind(await counter.refusal(counter.call(quote))) == (RetryElsewhere, 429, "busy")
        served.cancel()


async def test_who_gives_up_in_the_queue_leaves_it() -> None:
    async with opened(HELLO, HANG) as counter:
        quote = counter.quote(counter.publish())
        served = await counter.occupy(counter.call(quote))
        waiting = await counter.open(counter.call(quote))
        gate = counter.serving._gates["scripted"]
        await until(lambda: gate._waiting == 1)
        waiting.cancel()
        await until(lambda: gate._waiting == 0)
        served.cancel()


async def test_what_the_backend_spent_is_settled_whatever_was_expected() -> None:
    async with opened(HELLO, WORLD + USAGE_CHUNK, END) as counter:
        counter.engine.limits = Limits(1, tokens=100_000)
        quote = counter.quote(counter.publish())
        await counter.ask(counter.call(quote))
        rates = counter.serving._gates["scripted"]._rates
        assert rates._tokens is not None
        bucket = rates._tokens
        bucket._rate = 1e-9  # as if no time passed
        before = bucket.level(time.monotonic())
        await counter.ask(counter.call(quote))
        assert round(before - bucket.level(time.monotonic()), 3) == 9


async def test_a_backend_at_its_limit_is_left_alone_and_clients_hear_for_how_long() -> None:
    error = RetryElsewhere("the backend is at its rate limit", status=429, code="backend_busy", retry_after=100)
    async with opened(error) as counter:
        quote = counter.quote(counter.publish())
        for code in ("backend_busy", "busy"):
            refused = await counter.refusal(counter.call(quote))
            assert kind(refused) == (RetryElsewhere, 429, code)
            assert isinstance(refused, RetryElsewhere)
            assert refused.retry_after is not None
            assert 90 < refused.retry_after <= 100
        assert len(counter.engine.asked) == 1


async def test_a_model_that_was_withdrawn_while_its_request_came_is_not_served() -> None:
    async with opened() as counter:
        quote = counter.quote(counter.publish())
        stream = await counter.connection.open(counter.call(quote))
        await until(lambda: bool(counter.serving._clients.open))
        cast(Any, counter.serving).engines = {}
        await stream.send(BODY)
        await stream.finish()
        with pytest.raises(RetryElsewhere) as refused:
            await read_all(stream)
        assert kind(refused.value) == (RetryElsewhere, 404, "model_not_found")


@pytest.mark.parametrize("turns", range(4))
async def test_a_cancel_that_comes_together_with_the_place_is_heard(turns: int) -> None:
    gate = Gate(Limits(1), SETTINGS)

    async def second() -> None:
        async with gate.place():
            await asyncio.Event().wait()

    async with gate.place():
        task = asyncio.create_task(second())
        await until(lambda: gate._waiting == 1)
    for _ in range(turns):  # the place is free, and the news of it is on its way
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not gate._free.locked()


async def test_one_client_has_no_more_than_its_share() -> None:
    async with opened(HELLO, HANG, requests_per_client=2) as counter:
        quote = counter.quote(counter.publish())
        served = await counter.occupy(counter.call(quote))
        assert kind(await counter.refusal(counter.call(quote))) == (RetryElsewhere, 429, "busy")  # with a bystander
        # Another client has its own.
        other = Identity.generate()
        connection = await dialled(counter.executor, other)
        stream = await connection.open(counter.call(quote, signer=other))
        await stream.send(BODY)
        await stream.finish()
        await until(lambda: counter.serving._clients.open[other.address] == 1)
        counter.engine.script = WELL
        served.cancel()
        assert await read_all(stream) == HELLO + WORLD
        await connection.close()


FAILURES: dict[str, tuple[tuple[Any, ...], tuple[type[LloomError], int, str]]] = {
    "the backend is down": (
        (RetryElsewhere("down", status=503, code="backend_down"),),
        (RetryElsewhere, 503, "backend_down"),
    ),
    "the request is wrong": (
        (CallerFault("no such role", code="invalid_value", param="messages"),),
        (CallerFault, 400, "invalid_value"),
    ),
    "a bug": ((ZeroDivisionError("secret"),), (RetryElsewhere, 500, "internal")),
    "a bug after content": ((HELLO, ZeroDivisionError("secret")), (RetryElsewhere, 500, "internal")),
    "no end": ((HELLO,), (RetryElsewhere, 502, "backend_cut")),
    "nothing at all": ((), (RetryElsewhere, 502, "backend_cut")),
    "an end and nothing else": ((END,), (RetryElsewhere, 502, "backend_silent")),
    "a beginning and an end": ((chunk(""), END), (RetryElsewhere, 502, "backend_silent")),
    "an error in the stream": (
        (HELLO, event(b'{"error": {"message": "out of memory"}}')),
        (RetryElsewhere, 502, "backend_failed"),
    ),
    "a usage that is none": (
        (HELLO, event(b'{"choices": [], "usage": {"prompt_tokens": "many"}}')),
        (RetryElsewhere, 502, "bad_usage"),
    ),
    "more tokens than there are": (
        (HELLO, event(b'{"choices": [], "usage": {"prompt_tokens": 4294967296}}')),
        (RetryElsewhere, 502, "bad_usage"),
    ),
    "no JSON": ((HELLO, event(b'{"usage": {"prompt_tokens": 1')), (RetryElsewhere, 502, "bad_stream")),
}


@pytest.mark.parametrize(("script", "expected"), FAILURES.values(), ids=list(FAILURES))
async def test_what_fails_at_the_backend_is_told_and_not_billed(
    script: tuple[Any, ...], expected: tuple[type[LloomError], int, str]
) -> None:
    async with opened() as counter:
        counter.engine.script = script
        refused = await counter.refusal(counter.call(counter.quote(counter.publish())))
        assert kind(refused) == expected
        assert "secret" not in str(refused)
        await until(lambda: counter.idle)
        delivered = script[:1] in ((HELLO,), (chunk(""),))
        assert [(draft.status, draft.cost, draft.output_tokens) for draft in counter.drafts] == (
            [(Status.FAILED, 0, 0)] if delivered else []
        )
        assert counter.serving.served == 0


async def test_an_answer_of_no_words_that_says_why_it_ends_is_one() -> None:
    empty = event(b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}')
    async with opened(chunk("") + empty, END) as counter:
        answer, done = await counter.ask(counter.call(counter.quote(counter.publish())))
        assert (answer, done.output_tokens) == (chunk("") + empty, 0)
        await until(lambda: counter.idle)
        assert [draft.status for draft in counter.drafts] == [Status.COMPLETE]


async def test_a_backend_that_hangs_is_given_up_at_the_deadline() -> None:
    leap = leaping()
    async with opened(HELLO, HANG, request_seconds=9) as counter:
        stream = await counter.open(counter.call(counter.quote(counter.publish())))
        await counter.engine.hung.wait()
        leap(9)
        with pytest.raises(RetryElsewhere) as refused:
            await read_all(stream)
        assert kind(refused.value) == (RetryElsewhere, 504, "deadline")
        await until(lambda: counter.idle)
        assert [draft.status for draft in counter.drafts] == [Status.FAILED]


async def test_a_body_that_does_not_come_is_given_up_at_the_deadline() -> None:
    async with opened(request_seconds=0.05) as counter:
        stream = await counter.connection.open(counter.call(counter.quote(counter.publish())))
        await stream.send(BODY[:-1])
        with pytest.raises(RetryElsewhere) as refused:
            await stream.receive()
        assert kind(refused.value) == (RetryElsewhere, 504, "deadline")


async def test_an_offer_that_nobody_reads_is_given_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Stream, "send", stuck)
    async with opened(request_seconds=0.05) as counter:
        counter.publish()
        stream = await counter.connection.open(OfferCall())
        with pytest.raises(RetryElsewhere) as refused:
            await stream.receive()
        assert kind(refused.value) == (RetryElsewhere, 504, "deadline")


# What is cancelled


async def test_a_cancel_stops_the_engine_and_bills_what_arrived() -> None:
    async with opened(HELLO, HANG) as counter:
        call = counter.call(counter.quote(counter.publish()))
        stream = await counter.open(call)
        assert await stream.receive() == HELLO
        await counter.engine.hung.wait()
        stream.cancel()
        await counter.engine.closed.wait()
        await until(lambda: counter.idle)
        [draft] = counter.drafts
        inputs = tokens.count_messages([{"role": "user", "content": "Say hello."}], [], "o200k_base")
        assert draft.status is Status.CANCELLED
        assert draft.response_hash == hashlib.sha256(call.salt + HELLO).digest()
        assert (draft.response_bytes, draft.input_tokens, draft.output_tokens) == (len(HELLO), inputs, 1)
        assert draft.cost == inputs * 3 + 5


async def test_a_cancel_on_the_way_bills_no_byte_that_did_not_arrive() -> None:
    """The executor has sent two words, and reported both, when the news comes that only one arrived."""
    async with opened(HELLO, WORLD + USAGE_CHUNK, HANG) as counter:
        call = counter.call(counter.quote(counter.publish()))
        stream = await counter.open(call)
        await counter.engine.hung.wait()
        await until(lambda: stream.received == len(HELLO + WORLD))
        # As if the second word were still on the wire.
        counter.connection.session._streams.find(1).received = len(HELLO)
        stream.cancel()
        await until(lambda: counter.idle)
        [draft] = counter.drafts
        assert draft.response_hash == hashlib.sha256(call.salt + HELLO).digest()
        assert (draft.status, draft.response_bytes) == (Status.CANCELLED, len(HELLO))
        assert (draft.input_tokens, draft.output_tokens) == (7, 1)


async def test_who_cancels_in_the_middle_of_a_huge_block_is_billed_for_what_arrived() -> None:
    """The backend gives more at once than a window holds; the client reads none of it, and a part is still on the wire."""
    large, huge = chunk("x" * 200_000), chunk("y" * 600_000)
    async with opened(large, huge, HANG) as counter:
        call = counter.call(counter.quote(counter.publish()))
        stream = await counter.open(call)
        await until(lambda: stream.received == settings().stream_window)
        counter.connection.session._streams.find(1).received = 150_000
        stream.cancel()
        await until(lambda: counter.idle)
        [draft] = counter.drafts
        assert (draft.status, draft.response_bytes) == (Status.CANCELLED, 150_000)
        assert draft.response_hash == hashlib.sha256(call.salt + large[:150_000]).digest()


async def test_who_leaves_is_not_waited_for() -> None:
    async with opened(HELLO, HANG) as counter:
        quote = counter.quote(counter.publish())
        other = Identity.generate()
        connection = await dialled(counter.executor, other)
        stream = await connection.open(counter.call(quote, signer=other))
        await stream.send(BODY)
        await stream.finish()
        await counter.engine.hung.wait()
        connection.wire.abort()
        await counter.engine.closed.wait()
        await until(lambda: counter.idle)
        assert [(draft.status, draft.cost) for draft in counter.drafts] == [(Status.FAILED, 0)]
        counter.engine.script = WELL
        await counter.ask(counter.call(quote))


async def test_a_lie_about_the_bytes_that_arrived_earns_no_receipt() -> None:
    blocks = [chunk("x" * 60_000) for _ in range(12)]
    async with opened(*blocks, HANG) as counter:
        stream = await counter.open(counter.call(counter.quote(counter.publish())))
        while not counter.engine.hung.is_set():
            await stream.receive()
        counter.connection.session._streams.find(1).received = 0
        stream.cancel()
        await until(lambda: counter.idle)
        assert counter.drafts == []


async def test_the_operator_hears_of_a_backend_that_counts_otherwise() -> None:
    lies = event(b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":900,"total_tokens":907}}')
    said: list[str] = []
    sink = logger.add(lambda line: said.append(str(line)), level="WARNING", format="{message}")
    try:
        async with opened(HELLO, WORLD + lies, END) as counter:
            counter.serving.audit = Audit(accounting())
            for _ in range(2):
                await counter.ask(counter.call(counter.quote(counter.publish())))
                await until(lambda: counter.idle)
    finally:
        logger.remove(sink)
    assert len(said) == 1
    assert said[0].startswith("the backend of m reports 900 tokens of an answer that has 2 by o200k_base")
