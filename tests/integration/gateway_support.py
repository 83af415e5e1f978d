"""A gateway with a scripted router behind it, and raw HTTP to talk to it."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lloom.adapters.gateway import Gateway, Guests, Health, Server
from lloom.core.api.request import ApiRequest
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import Done
from lloom.core.offer import ModelOffer
from lloom.core.settings import GatewaySettings
from lloom.core.sse import event

EXECUTOR = NodeId(b"\x07" * 20)
OTHER = NodeId(b"\x08" * 20)
DONE = Done(3, 2, b'{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}')
SETTINGS = GatewaySettings(
    host="127.0.0.1",
    port=0,
    max_body=64 * 1024,
    body_seconds=20,
    hold_headers_seconds=20,
    keep_alive_seconds=20,
    drain_seconds=1,
    replay_seconds=60,
    replay_bytes=64 * 1024,
    header_bytes=65536,
    keys={},
    assumed_output=100,
    cors=(),
)
HELLO = [{"role": "user", "content": "hello"}]


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    whole = {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m", "choices": [choice]}
    return event(msgspec.json.encode(whole))


FIRST = chunk({"role": "assistant", "content": ""}) + chunk({"content": "Hel"})
REST = [chunk({"content": "lo"}), chunk({}, "stop")]


class ScriptedAnswer:
    """Gives `first`, then each of `parts`: bytes, an exception to raise, or an event to wait for."""

    def __init__(self, first: bytes = FIRST, parts: list[Any] | None = None, done: Done = DONE) -> None:
        self.executor = EXECUTOR
        self.attempts = 2
        self.routing = "policy=scripted"
        self.deadline = asyncio.get_running_loop().time() + 60
        self.first = first
        self.done: Done | None = None
        self.closed = asyncio.Event()
        self._parts = list(REST if parts is None else parts)
        self._last = done

    async def read(self) -> bytes | None:
        while self._parts:
            part = self._parts.pop(0)
            if isinstance(part, Exception):
                raise part
            if isinstance(part, bytes):
                return part
            await part.wait()
        self.done = self._last
        return None

    async def folded(self, make: Callable[[], Any]) -> bytes:
        whole = make()
        whole.feed(self.first)
        while (data := await self.read()) is not None:
            whole.feed(data)
        return whole.end(self.done)

    async def close(self) -> None:
        self.closed.set()


@dataclass
class ScriptedRouter:
    """Answers with what `script` gives for a request; an exception is raised, an event waited for."""

    script: Callable[[ApiRequest], Any] = lambda _: ScriptedAnswer()
    requests: list[ApiRequest] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    nicknames: dict[str, list[tuple[NodeId, ModelOffer]]] = field(default_factory=dict)

    async def ask(self, request: ApiRequest) -> ScriptedAnswer:
        self.requests.append(request)
        self.arrived.set()
        found = self.script(request)
        if isinstance(found, tuple):
            gate, found = found
            try:
                await gate.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if isinstance(found, Exception):
            raise found
        return found

    def reputation(self, executor: NodeId) -> float:
        return 0.75 if executor == EXECUTOR else 0.5

    async def models(self) -> list[tuple[NodeId, ModelOffer]]:
        return [
            (EXECUTOR, offer("big/model:7b", input_price=5)),
            (OTHER, offer("big/model:7b", input_price=9, context=1024, features=("tools",))),
            (OTHER, offer("small")),
        ]

    async def aliases(self) -> dict[str, list[tuple[NodeId, ModelOffer]]]:
        return self.nicknames

    async def offers(self, model: str) -> list[ModelOffer]:
        meant = "small" if model == "nick" else model
        return [offer for _, offer in await self.models() if offer.id == meant]


def offer(name: str, **fields: Any) -> ModelOffer:
    base: dict[str, Any] = {"context": 2048, "max_output": 512, "parallel": 1, "encoding": "o200k_base", "backend": "b"}
    return ModelOffer(id=name, **{**base, **fields})


@dataclass
class Running:
    """A gateway that listens."""

    port: int
    router: ScriptedRouter
    gateway: Gateway
    health: dict[str, Any]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def http(self, head: str, body: bytes = b"") -> Reply:
        """Sends raw HTTP and reads one answer to its end."""
        async with self.connected() as (reader, writer):
            writer.write(head.encode().replace(b"\n", b"\r\n") + b"\r\n\r\n" + body)
            return await read_reply(reader)

    async def post(self, body: bytes, *headers: str, path: str = "/v1/chat/completions") -> Reply:
        lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json", *headers]
        return await self.http("\n".join([*lines, f"content-length: {len(body)}"]), body)

    async def ask(self, *headers: str, **fields: Any) -> Reply:
        return await self.post(ask(**fields), *headers)

    async def get(self, path: str, *headers: str) -> Reply:
        return await self.http("\n".join([f"GET {path} HTTP/1.1", "host: localhost:1", *headers]))

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            await writer.wait_closed()


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The inner object of OpenAI's envelope, which must be whole."""
        assert set(self.json) == {"error"}
        assert set(self.json["error"]) == {"message", "type", "param", "code"}
        return dict(self.json["error"])


def ask(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": HELLO, **fields}).encode()


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return int(status.split()[1]), headers


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    status, headers = await read_head(reader)
    if headers.get("transfer-encoding") != "chunked":
        return Reply(status, headers, await reader.readexactly(int(headers.get("content-length", 0))))
    parts = []
    while part := await read_chunk(reader):
        parts.append(part)
    return Reply(status, headers, b"".join(parts))


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """One chunk of a chunked body; empty at the end."""
    size = int(await reader.readline(), 16)
    return (await reader.readexactly(size + 2))[:-2]


@asynccontextmanager
async def running(
    router: ScriptedRouter | None = None, guests: Guests | None = None, **settings: Any
) -> AsyncIterator[Running]:
    chosen = msgspec.structs.replace(SETTINGS, **settings)
    router = router or ScriptedRouter()
    health: dict[str, Any] = {"status": "ok", "peers": 3}

    def tell() -> Health:
        return Health(node=checksum(EXECUTOR), role="client", version="1", network="test", **health)

    gateway = Gateway(router, tell, chosen, guests)
    server = Server.start(gateway, chosen)
    try:
        yield Running(server.port, router, gateway, health)
    finally:
        await server.close()


@contextmanager
def open_files(wanted: int) -> Iterator[None]:
    """As many as that at least may be open: both ends of every connection are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
