from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from lloom.adapters.bridge import Connection, Link, Listener, Service, Stream, dial
from lloom.adapters.gateway import Gateway, Health, Server
from lloom.adapters.routing.attempt import Keeping
from lloom.adapters.routing.deliveries import Deliveries
from lloom.adapters.routing.directory import Directory
from lloom.adapters.routing.offers import Scope
from lloom.adapters.routing.pool import Pool
from lloom.adapters.routing.returning import RETURNS
from lloom.adapters.routing.router import Router
from lloom.core.billing.quote import model_hash
from lloom.core.billing.receipt import Receipt, Status, sign_receipt
from lloom.core.billing.request import check_request
from lloom.core.eip712 import Domain
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity, NodeId, checksum
from lloom.core.messages import Done, ModelCall, OfferCall, Receipts, SignedReceipt
from lloom.core.offer import Endpoint
from lloom.core.order import Client
from lloom.core.payment import audit
from lloom.core.reputation.inspection import KEY_BYTES, Inspection
from lloom.core.reputation.reputations import Reputations
from lloom.core.routing.outcomes import Outcomes
from lloom.core.routing.plans import Plans
from lloom.core.sse import Splitter, event, payload
from tests.integration import gateway_support
from tests.integration.bridge_support import NETWORK, certificate, settings, until
from tests.integration.clock_support import leaping
from tests.integration.gateway_support import DONE, FIRST, REST, Reply, Running, ScriptedRouter, ask
from tests.money_support import accounting
from tests.unit.adapters.routing_support import DOMAIN, FakeDht, FakeExecutor
from tests.unit.adapters.routing_support import SETTINGS as ROUTING

GATEWAY = msgspec.structs.replace(gateway_support.SETTINGS, max_body=1 << 24)
WHOLE = FIRST + b"".join(REST)


class Worker(FakeExecutor):
    """An executor with a real bridge; `serve` answers its chats. The cheaper one is asked first."""

    def __init__(self, price: int, serve: Callable[[Worker, Stream], Awaitable[None]]) -> None:
        super().__init__(1, price=price)
        self.serve = serve
        self.bodies: list[bytes] = []
        self.cancelled = asyncio.Event()
        self.listener: Listener
        self.port = 1

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", getattr(self, "port", 1))

    async def handle(self, stream: Stream) -> None:
        try:
            if isinstance(stream.call, OfferCall):
                await stream.send(self.sealed)
                await stream.finish()
            else:
                self.bodies.append(b"".join([part async for part in parts(stream)]))
                await self.serve(self, stream)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def bill(self, stream: Stream, delivered: bytes, status: Status) -> None:
        """Sends the receipt of `delivered`."""
        assert isinstance(stream.call, ModelCall)
        checked = check_request(stream.call.request, stream.call.signature, DOMAIN, 0)
        receipt = Receipt(
            request_digest=checked.digest,
            model=model_hash("m"),
            response_hash=hashlib.sha256(stream.call.salt + delivered).digest(),
            response_bytes=len(delivered),
            input_tokens=3,
            cached_tokens=0,
            output_tokens=2,
            cost=1,
            lane_seq=1,
            lane_charged=1,
            started_at=1,
            finished_at=2,
            status=status,
        )
        stream.connection.send_control(Receipts([sign_receipt(receipt, self.identity, DOMAIN)]))


async def parts(stream: Stream) -> AsyncIterator[bytes]:
    while (part := await stream.receive()) is not None:
        yield part


async def well(worker: Worker, stream: Stream) -> None:
    for part in (FIRST, *REST):
        await stream.send(part)
    await stream.finish(DONE)
    worker.bill(stream, WHOLE, Status.COMPLETE)


async def busy(_: Worker, __: Stream) -> None:
    raise RetryElsewhere("all places are taken", status=429, code="busy", retry_after=30)


async def hang(_: Worker, __: Stream) -> None:
    await asyncio.Event().wait()


async def hang_up(_: Worker, stream: Stream) -> None:
    stream.connection.wire.abort()


async def break_off(_: Worker, stream: Stream) -> None:
    await stream.send(FIRST)
    raise RetryElsewhere("the graphics card is on fire", code="backend_failed")


async def stall(_: Worker, stream: Stream) -> None:
    await stream.send(FIRST)
    await asyncio.Event().wait()


def breaking(*parts: bytes, then: Callable[[Worker, Stream], Awaitable[None]]) -> Any:
    """Says `parts` and loses the connection; what is asked after that is answered by `then`."""

    async def serve(worker: Worker, stream: Stream) -> None:
        if len(worker.bodies) > 1:
            await then(worker, stream)
            return
        for part in parts:
            await stream.send(part)
        stream.connection.flush()
        stream.connection.wire.abort()

    return serve


async def bug(_: Worker, __: Stream) -> None:
    raise ZeroDivisionError("secret detail")


@dataclass
class Network:
    """A gateway in front of a real router, over real bridges to workers."""

    http: Running
    router: Router
    pool: Pool
    outcomes: Outcomes
    deliveries: Deliveries
    receipts: list[tuple[NodeId, SignedReceipt]] = field(default_factory=list)
    receipted: asyncio.Event = field(default_factory=asyncio.Event)

    def on_receipt(self, executor: NodeId, signed: SignedReceipt) -> None:
        self.receipts.append((executor, signed))
        self.receipted.set()


@asynccontextmanager
async def network(*workers: Worker, reputations: Reputations | None = None, **changes: Any) -> AsyncIterator[Network]:
    async with AsyncExitStack() as stack:
        for worker in workers:
            service = Service(worker.address, NETWORK, settings(), worker.handle, lambda _, __: None)
            worker.listener = await Listener.start("127.0.0.1", 0, certificate(worker.identity), service)
            stack.push_async_callback(worker.listener.close)
            worker.port = worker.listener.port
            worker.seal()
        routing = msgspec.structs.replace(ROUTING, **changes)
        link = Link(Identity.generate(), NETWORK, settings())
        outcomes = Outcomes(routing.memory_seconds, routing.cooldown_seconds, reputations)
        deliveries = Deliveries(lambda *receipt: net.on_receipt(*receipt))

        async def reach(endpoint: Endpoint, executor: NodeId) -> Connection:
            return await dial(endpoint, executor, link, deliveries.on_control)

        pool = Pool(reach, 16)
        stack.push_async_callback(pool.close)
        directory = Directory(FakeDht(*workers), None, pool, Scope(NETWORK, 20), routing)
        stack.push_async_callback(directory.close)
        client = Client(link.identity, Domain())
        keeping = Keeping(
            routing,
            outcomes,
            deliveries,
            audit=lambda report: audit.problem(report, accounting()),
            inspection=Inspection(outcomes.reputations, bytes(KEY_BYTES)),
        )
        router = Router(client, Plans(routing, outcomes), directory, pool, keeping)
        health = Health(status="ok", node="", role="client", version="", network=NETWORK, peers=1)
        gateway = Gateway(router, lambda: health, GATEWAY)
        server = Server.start(gateway, GATEWAY)
        stack.push_async_callback(server.close)
        net = Network(Running(server.port, ScriptedRouter(), gateway, {}), router, pool, outcomes, deliveries)
        async with asyncio.timeout(60):
            yield net


def served_by(reply: Reply) -> tuple[str, str]:
    return reply.headers["x-lloom-executor"], reply.headers["x-lloom-attempts"]


async def test_a_request_goes_out_and_its_answer_comes_back_byte_for_byte() -> None:
    worker = Worker(1, well)
    async with network(worker) as net:
        body = ask(stream=True)
        reply = await net.http.post(body)
        assert (reply.status, served_by(reply)) == (200, (checksum(worker.address), "1"))
        assert reply.body.startswith(WHOLE + b": lloom ")
        assert worker.bodies == [body]
        plain = await net.http.ask()
        assert plain.json["choices"][0]["message"]["content"] == "Hello"
        assert plain.json["usage"]["total_tokens"] == 5


async def test_an_alias_is_answered_by_what_it_stands_for_and_says_so() -> None:
    worker = Worker(1, well)
    async with network(worker, aliases={"gpt-4o": ("llama*", "m*")}) as net:
        reply = await net.http.ask(model="gpt-4o")
        assert (reply.status, reply.json["model"]) == (200, "m")
        assert reply.headers["x-lloom-routing"].startswith("policy=cheapest; score=")
        assert [offer.id for offer in await net.router.offers("gpt-4o")] == ["m"]
        assert await net.router.offers("gpt-5") == []


async def test_one_session_stays_with_one_executor() -> None:
    workers = [Worker(1, well) for _ in range(3)]
    async with network(*workers, policy="balanced", affinity=0.5, explore=0.0) as net:
        await net.router.models()  # all are known
        for _ in range(6):
            await net.http.ask("x-lloom-session: mine")
        assert sorted(len(worker.bodies) for worker in workers) == [0, 0, 6]


async def test_the_gateway_tells_whom_it_would_ask_and_why() -> None:
    good, bad = Worker(2, well), Worker(1, busy)
    async with network(good, bad) as net:
        await net.http.ask()
        told = (await net.http.get("/lloom/routing/m")).json["data"]
        assert [each["executor"] for each in told] == [checksum(good.address), checksum(bad.address)]
        assert [each["verdict"] for each in told] == ["well", "not now"]
        assert "to be asked again in" in told[1]["reason"]
        assert (await net.http.get("/lloom/routing/nobody")).status == 404


async def test_a_body_larger_than_the_window_arrives_whole() -> None:
    worker = Worker(1, well)
    async with network(worker) as net:
        body = ask(padding="x" * 2_000_000)
        assert (await net.http.post(body)).status == 200
        assert worker.bodies == [body]


async def test_a_refusal_goes_elsewhere() -> None:
    await _taken_over(busy)


async def test_a_failure_nobody_expected_goes_elsewhere() -> None:
    await _taken_over(bug)


@pytest.mark.parametrize("heard", [1, 200, len(FIRST), len(FIRST) + 7, len(WHOLE)])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_whose_connection_broke_goes_on_at_the_same_executor(heard: int, stream: bool) -> None:
    worker = Worker(1, breaking(WHOLE[:heard], then=well))
    other = Worker(2, well)
    async with network(worker, other) as net:
        reply = await net.http.ask(stream=stream)
        assert (reply.status, served_by(reply)) == (200, (checksum(worker.address), "1"))
        if stream:
            assert reply.body.startswith(WHOLE + b": lloom ")
        else:
            assert reply.json["choices"][0]["message"]["content"] == "Hello"
        first, second = worker.bodies
        assert first == second
        assert other.bodies == []
        await net.receipted.wait()
        assert [executor for executor, _ in net.receipts] == [worker.address]


async def differs(_: Worker, stream: Stream) -> None:
    await stream.send(WHOLE.replace(b"Hel", b"Wel"))
    await stream.finish(DONE)


async def ends_early(_: Worker, stream: Stream) -> None:
    await stream.send(FIRST[:10])
    await stream.finish(DONE)


@pytest.mark.parametrize("then", [differs, ends_early, busy, hang_up])
async def test_who_has_no_more_of_a_broken_answer_or_another_one_is_left(
    then: Callable[[Worker, Stream], Awaitable[None]],
) -> None:
    worker = Worker(1, breaking(FIRST, then=then))
    other = Worker(2, well)
    async with network(worker, other) as net:
        reply = await net.http.ask(stream=True, temperature=0)
        assert served_by(reply)[0] == checksum(worker.address)
        said = [chunk for chunk in Splitter().feed(reply.body) if chunk.startswith(b"data: {")]
        texts = [
            choice["delta"].get("content", "")
            for each in said
            for choice in msgspec.json.decode(payload(each))["choices"]
        ]
        assert "".join(texts) == "Hello"
        assert len(worker.bodies) == 2
        assert len(other.bodies) == 1


async def test_an_executor_whose_connections_break_again_and_again_is_left() -> None:
    async def serve(_: Worker, stream: Stream) -> None:
        await stream.send(FIRST)
        stream.connection.flush()
        stream.connection.wire.abort()

    worker, other = Worker(1, serve), Worker(2, well)
    async with network(worker, other) as net:
        reply = await net.http.ask(stream=True, temperature=0)
        assert b'"content":"lo"' in reply.body
        assert (len(worker.bodies), len(other.bodies)) == (1 + RETURNS, 1)


async def test_a_lost_connection_goes_elsewhere() -> None:
    await _taken_over(hang_up)


async def test_silence_goes_elsewhere_and_stops_the_work() -> None:
    leap = leaping()

    async def hang_too_long(worker: Worker, stream: Stream) -> None:
        leap(3)
        await hang(worker, stream)

    await (await _taken_over(hang_too_long, first_token_seconds=3)).cancelled.wait()


async def _taken_over(serve: Callable[[Worker, Stream], Awaitable[None]], **changes: Any) -> Worker:
    bad, good = Worker(1, serve), Worker(2, well)
    async with network(bad, good, **changes) as net:
        reply = await net.http.ask(stream=True)
        assert (reply.status, served_by(reply)) == (200, (checksum(good.address), "2"))
        assert reply.body.startswith(WHOLE)
    assert len(bad.bodies) == 1
    return bad


async def test_a_dead_endpoint_goes_elsewhere() -> None:
    dead, good = Worker(1, well), Worker(2, well)
    async with network(dead, good) as net:
        await net.router.models()  # both are known
        await dead.listener.close()
        for attempts in ("2", "1"):  # the second time it rests
            assert served_by(await net.http.ask()) == (checksum(good.address), attempts)


async def test_when_all_refuse_the_caller_gets_the_reason_and_its_status() -> None:
    async with network(Worker(1, busy), Worker(2, busy)) as net:
        reply = await net.http.ask(stream=True)
        assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (429, "busy", "30")


async def test_after_content_the_error_comes_in_band_and_nobody_else_is_asked() -> None:
    for serve, changes, code in (
        (break_off, {}, "backend_failed"),
        (stall, {"between_tokens_seconds": 0.1}, "stalled"),
    ):
        bad, good = Worker(1, serve), Worker(2, well)
        async with network(bad, good, **changes) as net:
            reply = await net.http.ask(stream=True)
            assert (reply.status, served_by(reply)) == (200, (checksum(bad.address), "1"))
            assert reply.body.startswith(FIRST)
            error = msgspec.json.decode(payload(Splitter().feed(reply.body)[-1]))["error"]
            assert error["code"] == code
            assert good.bodies == []


def said(stream: Stream, text: str, finish: str | None = None) -> bytes:
    """A chunk of the operation that is asked for."""
    assert isinstance(stream.call, ModelCall)
    what: dict[str, Any] = {"text": text} if stream.call.operation == "completions" else {"delta": {"content": text}}
    choice = {"index": 0, **what, "finish_reason": finish}
    return event(msgspec.json.encode({"id": text, "created": 1, "model": "m", "choices": [choice]}))


@pytest.mark.parametrize(
    ("path", "fields", "head", "ends"),
    [
        ("chat/completions", {"stream_options": {"include_usage": True}}, b'"id":"Once "', b"data: [DONE]"),
        ("completions", {"messages": None, "prompt": "hi"}, b'"id":"Once "', b"data: [DONE]"),
        ("messages", {"max_tokens": 50}, b"event: message_start", b"event: message_stop"),
        ("responses", {"messages": None, "input": "hi"}, b"event: response.created", b"event: response.completed"),
    ],
    ids=["chat", "completions", "messages", "responses"],
)
async def test_in_every_dialect_an_answer_of_two_executors_is_one(
    path: str, fields: dict[str, Any], head: bytes, ends: bytes
) -> None:
    async def begins(_: Worker, stream: Stream) -> None:
        await stream.send(said(stream, "Once ") + said(stream, "upon"))
        raise RetryElsewhere("the graphics card is on fire", code="backend_failed")

    async def goes_on(_: Worker, stream: Stream) -> None:
        await stream.send(said(stream, " a") + said(stream, " time", "stop"))
        await stream.finish(Done(9, 2))

    workers = [Worker(1, begins), Worker(2, goes_on)]
    for worker in workers:
        worker.features = ("prefill",)
    async with network(*workers) as net:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True} | fields
        asked = {name: value for name, value in body.items() if value is not None}
        reply = await net.http.post(msgspec.json.encode(asked), path=f"/v1/{path}")
        at = [reply.body.index(b'"%b"' % word) for word in (b"Once ", b"upon", b" a", b" time")]
        assert at == sorted(at)
        assert reply.body.count(ends) == 1
        assert head in reply.body
        assert b'"id":" a"' not in reply.body
        assert b'"input_tokens":7' in reply.body
        assert b'"output_tokens":4' in reply.body


async def test_a_caller_that_leaves_stops_the_work_and_gets_a_receipt_of_what_arrived() -> None:
    async def billed(worker: Worker, stream: Stream) -> None:
        try:
            await stall(worker, stream)
        finally:
            assert stream.cancelled is not None
            worker.bill(stream, FIRST[: stream.cancelled.received], Status.CANCELLED)

    worker = Worker(1, billed)
    async with network(worker) as net:
        async with net.http.connected() as (reader, writer):
            body = ask(stream=True)
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
            writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
            await reader.readuntil(FIRST)
        await worker.cancelled.wait()
        await net.receipted.wait()
        assert net.receipts[0][0] == worker.address


async def test_a_true_receipt_is_handed_on_and_a_false_one_is_not() -> None:
    async def lying(worker: Worker, stream: Stream) -> None:
        await stream.send(WHOLE)
        await stream.finish(Done(3, 2))
        worker.bill(stream, b"something else", Status.COMPLETE)
        worker.bill(stream, WHOLE, Status.COMPLETE)

    worker = Worker(1, lying)
    async with network(worker) as net:
        await net.http.ask()
        await net.receipted.wait()
        [(executor, signed)] = net.receipts
        assert executor == worker.address
        assert len(signed.signature) == 65


async def test_an_executor_that_restarts_is_dialled_again() -> None:
    worker = Worker(1, well)
    async with network(worker) as net:
        await net.http.ask()
        for connection in tuple(worker.listener.connections):
            connection.wire.abort()
        await until(lambda: net.pool.connections == 0)
        assert (await net.http.ask()).status == 200
