"""A network in memory: executors that answer as scripted, the DHT that names them, and the settings of a router."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgspec

from lloom.adapters.routing.attempt import Keeping
from lloom.adapters.routing.deliveries import Deliveries
from lloom.adapters.routing.directory import Directory
from lloom.adapters.routing.offers import Scope
from lloom.adapters.routing.pool import Pool
from lloom.adapters.routing.router import Router
from lloom.core import tokens
from lloom.core.api.chat import parse
from lloom.core.api.request import ApiRequest
from lloom.core.eip712 import Domain
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity, NodeId
from lloom.core.messages import Done, ModelCall, OfferCall, SignedReceipt
from lloom.core.offer import Endpoint, ModelOffer, Offer, fingerprint, seal
from lloom.core.order import Client
from lloom.core.payment import audit
from lloom.core.routing.outcomes import Outcomes
from lloom.core.routing.plans import Plans
from lloom.core.settings import RoutingSettings
from lloom.core.sse import event
from tests.money_support import accounting

# Once loaded it stays: no count is left to a thread, for which virtual time does not wait.
tokens.count("", "o200k_base")

NETWORK = "test"
DOMAIN = Domain(0, bytes(20))
SETTINGS = RoutingSettings(
    policy="cheapest",
    executors=(),
    allow=(),
    deny=(),
    attempts=3,
    continuations=5,
    first_token_seconds=60,
    between_tokens_seconds=60,
    total_seconds=60,
    cooldown_seconds=5,
    memory_seconds=600,
    directory_seconds=30,
    negative_seconds=2,
    max_input_price=None,
    max_output_price=None,
    grace_seconds=60,
    affinity=0.0,
    explore=0.25,
    hedge_share=0.0,
    reputation=0.67,
    reputation_seconds=86400,
    queue=0,
    queue_seconds=60,
    aliases={},
    models={},
)
ACCOUNTING = accounting()
HANG = object()
"""In a script: nothing comes any more."""


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return event(msgspec.json.encode({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))


ROLE, HEL, LO, END = (
    chunk({"role": "assistant"}),
    chunk({"content": "Hel"}),
    chunk({"content": "lo"}),
    chunk({}, "stop"),
)
DONE = Done(3, 2)
ANSWER: list[Any] = [ROLE, HEL, LO + END, DONE]


class FakeStream:
    """Plays `script`: bytes arrive, exceptions are raised, Done ends, HANG waits for ever."""

    def __init__(self, connection: FakeConnection, call: Any, script: list[Any]) -> None:
        self.connection = connection
        self.call = call
        self.body = b""
        self.received = 0
        self.done: Done | None = None
        self.cancelled = False
        self.finished = False
        self._script = list(script)

    async def send(self, data: bytes, until: float) -> None:
        self.body += data

    async def finish(self) -> None:
        self.finished = True

    async def receive(self, until: float | None = None) -> bytes | None:
        part = self._script.pop(0)
        if part is HANG:
            self.connection.executor.hung.set()
            async with asyncio.timeout_at(until):
                await asyncio.Event().wait()
        if isinstance(part, Exception):
            raise part
        if isinstance(part, Done):
            self.done = part
            return None
        self.received = max(self.received, self.connection.executor.arrived + len(part))
        self.connection.executor.arrived += len(part)
        return bytes(part)

    def cancel(self) -> None:
        self.cancelled = self.done is None


class FakeConnection:
    def __init__(self, executor: FakeExecutor) -> None:
        self.executor = executor
        self.peer = executor.address
        self.streams = 0
        self.closed = asyncio.Event()
        self.session = SimpleNamespace(closed=False, leaving=False)

    async def open(self, call: Any) -> FakeStream:
        script = [self.executor.sealed, Done()] if isinstance(call, OfferCall) else self.executor.script
        self.executor.arrived = 0
        stream = FakeStream(self, call, script)
        self.executor.streams.append(stream)
        return stream

    async def close(self) -> None:
        self.break_off()

    def break_off(self) -> None:
        self.session.closed = True
        self.closed.set()


@dataclass
class FakeExecutor:
    """One executor with one worker. `reach`: what dialling waits for, or raises."""

    number: int
    script: list[Any] = field(default_factory=lambda: list(ANSWER))
    models: tuple[str, ...] = ("m",)
    features: tuple[str, ...] = ()
    expires: int = 1 << 40
    price: int = 0
    reach: asyncio.Event | RetryElsewhere | None = None
    streams: list[FakeStream] = field(default_factory=list)
    connections: list[FakeConnection] = field(default_factory=list)
    dials: int = 0
    arrived: int = 0
    hung: asyncio.Event = field(default_factory=asyncio.Event)
    identity: Identity = field(default_factory=Identity.generate)

    def __post_init__(self) -> None:
        self.price = self.price or self.number
        self.seal()

    @property
    def address(self) -> NodeId:
        return self.identity.address

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.number)

    @property
    def chats(self) -> list[FakeStream]:
        return [stream for stream in self.streams if isinstance(stream.call, ModelCall)]

    @property
    def offer_calls(self) -> int:
        return len(self.streams) - len(self.chats)

    def seal(self) -> None:
        models = tuple(self._model(name) for name in self.models)
        self.offer = Offer(
            executor=self.address,
            seq=1,
            expires=self.expires,
            endpoints=(self.endpoint,),
            models=models,
            software="test",
        )
        self.sealed = seal(self.offer, self.identity, NETWORK)
        self.fingerprint = fingerprint(self.sealed)

    def _model(self, name: str) -> ModelOffer:
        return ModelOffer(
            id=name,
            context=2048,
            max_output=512,
            parallel=64,
            encoding="o200k_base",
            backend="mock",
            operations=("chat", "completions", "embeddings"),
            features=self.features,
            output_price=self.price,
        )


class FakeDht:
    """Names every executor for every model it has, unless told otherwise."""

    def __init__(self, *executors: FakeExecutor) -> None:
        self.all = {executor.address: executor for executor in executors}
        self.hidden: set[NodeId] = set()
        self.peers = 1
        self.lookups: list[str] = []
        self.contacts = 0
        self.gate: asyncio.Event | None = None

    async def executors(self, model: str) -> list[NodeId]:
        self.lookups.append(model)
        if self.gate is not None:
            await self.gate.wait()
        return [
            executor.address
            for executor in self.all.values()
            if executor.address not in self.hidden and (model == "*" or model in executor.models)
        ]

    async def contact(self, executor: NodeId) -> Any:
        self.contacts += 1
        found = self.all.get(executor)
        return found and SimpleNamespace(endpoints=(found.endpoint,), fingerprint=found.fingerprint)

    async def dial(self, endpoint: Endpoint, executor: NodeId) -> Any:
        found = self.all[executor]
        found.dials += 1
        if isinstance(found.reach, Exception):
            raise found.reach
        if found.reach is not None:
            await found.reach.wait()
        connection = FakeConnection(found)
        found.connections.append(connection)
        return connection


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class Net:
    """A router and all it needs, over fake executors."""

    def __init__(self, *executors: FakeExecutor, **settings: Any) -> None:
        self.settings = msgspec.structs.replace(SETTINGS, **settings)
        self.clock = Clock()
        self.dht = FakeDht(*executors)
        self.pool = Pool(self.dht.dial, 64)
        self.directory = Directory(self.dht, None, self.pool, Scope(NETWORK, 60), self.settings, self.clock)
        self.outcomes = Outcomes(self.settings.memory_seconds, self.settings.cooldown_seconds)
        self.receipts: list[tuple[NodeId, SignedReceipt]] = []
        self.deliveries = Deliveries(lambda executor, signed: self.receipts.append((executor, signed)))
        self.client = Client(Identity.generate(), DOMAIN)
        plans = Plans(self.settings, self.outcomes)
        keeping = Keeping(
            self.settings, self.outcomes, self.deliveries, audit=lambda report: audit.problem(report, ACCOUNTING)
        )
        self.router = Router(self.client, plans, self.directory, self.pool, keeping)

    async def __aenter__(self) -> Net:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.directory.close()
        await self.pool.close()


def request(**fields: Any) -> ApiRequest:
    return parse(msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}))


async def until(condition: Callable[[], bool]) -> None:
    """Lets other tasks run until `condition` holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition is no event of asyncio's
            await asyncio.sleep(0)
