"""The mock: an OpenAI-compatible HTTP server that answers deterministically and fails on demand. It never asks for a key.

It is the upstream of the benchmarks, hence a lean protocol of its own (`mock_http`) instead of a web framework.
A request forces one fault by the header `x-mock-fault` or by `@fault` at the end of its model's name: `error`, `stall`
(never answers), `pause` (falls silent in the middle), `cut` (closes in the middle), `wrong_usage` (ten times the tokens),
`malformed` (no JSON), `empty` (200 and nothing), `none`, or any status from 400 to 599. Which tools it calls, a user's message
may say line by line (`mock_script`).
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import msgspec

from lloom.adapters.llm import mock_answers, mock_completions, mock_vectors
from lloom.adapters.llm.mock_answers import Answer
from lloom.adapters.llm.mock_http import HttpConnection, Request, head
from lloom.core.errors import CallerFault
from lloom.core.settings import Faults

RETRY_AFTER: Final = 7
FAULTS: Final = frozenset({"error", "stall", "pause", "cut", "wrong_usage", "malformed", "empty", "none"})
STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
LAST_CHUNK: Final = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the mock answers: `tokens` per answer, the pauses before the first token and between tokens, what goes wrong."""

    models: tuple[str, ...]
    tokens: int
    first_token_seconds: float
    token_seconds: float
    faults: Faults
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What /v1/models says of a model beside its name, as other servers do: `max_model_len` and the like."""
    requests_per_minute: int | None = None
    """Further ones get 429 and are told when to come back; None: no limit."""
    together: int = 1
    """Events of a stream that leave in one piece, before the pause: one by one each is a system call of some 7 µs."""


@dataclass(slots=True)
class Stats:
    """What happened so far; `cancelled` answers are those whose reader went away."""

    requests: int = 0
    active: int = 0
    cancelled: int = 0
    chunks: int = 0


class MockServer:
    """One listening mock. Use `MockServer.run`, or `start` and `close`."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.stats = Stats()
        self.connections: set[Connection] = set()
        self.url = ""
        self._times: deque[float] = deque()
        self._rng = random.Random(behaviour.faults.seed)  # noqa: S311 - faults that can be repeated
        self._server: asyncio.Server | None = None

    @classmethod
    @asynccontextmanager
    async def run(cls, behaviour: Behaviour, host: str, port: int) -> AsyncIterator[MockServer]:
        """A started server, closed at the end of the block."""
        server = cls(behaviour)
        await server.start(host, port)
        try:
            yield server
        finally:
            await server.close()

    async def start(self, host: str, port: int) -> None:
        """Listens on `host`:`port` (0: any free one); `url` is set afterwards. OSError if the port is taken."""
        self._server = await asyncio.get_running_loop().create_server(lambda: Connection(self), host, port)
        bound = self._server.sockets[0].getsockname()
        self.url = f"http://[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"http://{bound[0]}:{bound[1]}"

    async def close(self) -> None:
        """Stops listening and drops every connection."""
        if self._server is None:
            return
        self._server.close()
        tasks = [connection.drop() for connection in self.connections]
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)
        await self._server.wait_closed()

    def wait(self, now: float) -> float:
        """Seconds until one more request is taken; 0: it is, and counts."""
        limit = self.behaviour.requests_per_minute
        if limit is None:
            return 0.0
        while self._times and self._times[0] <= now - 60:
            self._times.popleft()
        if len(self._times) < limit:
            self._times.append(now)
            return 0.0
        return self._times[0] + 60 - now

    def fault(self, forced: str, model: str) -> str:
        """What shall go wrong: forced by the request, else drawn. One draw, so that the shares add up as they are given."""
        for wanted in (forced, model.rpartition("@")[2] if "@" in model else ""):
            if wanted in FAULTS or (wanted.isdecimal() and 400 <= int(wanted) < 600):
                return wanted
        draw, faults = self._rng.random(), self.behaviour.faults
        for name in ("error", "stall", "cut", "wrong_usage"):
            draw -= getattr(faults, name)
            if draw < 0:
                return name
        return "none"


class Connection(HttpConnection):
    """The mock's side of one connection."""

    def __init__(self, server: MockServer) -> None:
        super().__init__()
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._server.connections.discard(self)

    def abandoned(self) -> None:
        self._server.stats.cancelled += 1

    def respond(self, request: Request) -> None:
        stats = self._server.stats
        match request.method, request.path:
            case "POST", "/v1/chat/completions":
                stats.requests += 1
                self._write(request, mock_answers.chat)
            case "POST", "/v1/completions":
                stats.requests += 1
                self._write(request, mock_completions.completions)
            case "POST", "/v1/embeddings":
                stats.requests += 1
                self._embed(request)
            case "GET", "/v1/models":
                self.send(200, mock_answers.models(self._server.behaviour.models, self._server.behaviour.details))
            case "GET", "/health":
                self.send(200, b"{}")
            case "GET", "/mock/stats":
                self.send(200, msgspec.json.encode(asdict(stats)))
            case _:
                self._error(404, f"the mock has no {request.method} {request.path}")

    def _write(self, request: Request, made: Callable[[bytes, int, bool], Answer]) -> None:
        server, behaviour = self._server, self._server.behaviour
        try:
            answer = made(request.body, behaviour.tokens, False)
            fault = server.fault(request.header(b"x-mock-fault"), answer.model)
            if fault == "wrong_usage":
                answer = made(request.body, behaviour.tokens, True)
        except CallerFault as error:
            return self._error(400, str(error))
        at_once = not (answer.stream or behaviour.first_token_seconds or behaviour.token_seconds)
        return self._give(request, answer, fault, at_once)

    def _embed(self, request: Request) -> None:
        try:
            fault = self._server.fault(request.header(b"x-mock-fault"), mock_vectors.model(request.body))
            plain = mock_vectors.embeddings(request.body, fault == "wrong_usage")
        except CallerFault as error:
            return self._error(400, str(error))
        return self._give(request, Answer("", False, (), plain), fault, at_once=True)

    def _give(self, request: Request, answer: Answer, fault: str, at_once: bool) -> None:
        if wait := self._server.wait(asyncio.get_running_loop().time()):
            return self._error(429, "too many requests", math.ceil(wait))
        if fault == "error" or fault.isdecimal():
            return self._error(500 if fault == "error" else int(fault), _complaint(request))
        if at_once and fault in ("none", "wrong_usage"):
            return self.send(200, answer.plain)
        task = asyncio.create_task(self._answer(answer, fault))
        return self.answer_by(task, keep=request.keep and fault != "cut")

    async def _answer(self, answer: Answer, fault: str) -> None:
        self._server.stats.active += 1
        try:
            if fault == "stall":
                await _for_ever()
            elif answer.stream:
                await self._stream(answer.events, fault)
            else:
                await self._plain(answer.plain, fault)
        finally:
            self._server.stats.active -= 1

    async def _plain(self, body: bytes, fault: str) -> None:
        behaviour = self._server.behaviour
        await asyncio.sleep(behaviour.first_token_seconds + behaviour.token_seconds * behaviour.tokens)
        half = body[: len(body) // 2]
        if fault in ("cut", "pause"):
            self.transport.write(head(200, len(body)) + half)
            if fault == "pause":
                await _for_ever()
        else:
            self.send(200, {"malformed": half, "empty": b""}.get(fault, body))

    async def _stream(self, events: tuple[bytes, ...], fault: str) -> None:
        behaviour = self._server.behaviour
        self.transport.write(STREAM_HEAD)
        await asyncio.sleep(behaviour.first_token_seconds)
        events = _broken(events, fault)
        for start in range(0, len(events), behaviour.together):
            await self._write_together(events[start : start + behaviour.together])
        if fault == "pause":
            await _for_ever()
        if fault != "cut":
            self.transport.write(LAST_CHUNK)

    async def _write_together(self, events: tuple[bytes, ...]) -> None:
        """Events in one piece, and the pause after them."""
        server, data = self._server, b"".join(events)
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        server.stats.chunks += len(events)
        await asyncio.sleep(server.behaviour.token_seconds)
        await self.writable.wait()

    def _error(self, status: int, message: str, retry_after: int = RETRY_AFTER) -> None:
        kind = "invalid_request_error" if status < 500 else "server_error"
        error = {
            "message": message,
            "type": kind,
            "param": "messages" if status == 422 else None,
            "code": f"mock_{status}",
        }
        wait = b"retry-after: %d\r\n" % retry_after if status in (429, 503) else b""
        self.send(status, msgspec.json.encode({"error": error}), wait)


def _broken(events: tuple[bytes, ...], fault: str) -> tuple[bytes, ...]:
    """What of a stream is sent where something is to go wrong in its middle."""
    half = len(events) // 2
    match fault:
        case "empty":
            return ()
        case "cut" | "pause":
            return events[:half]
        case "malformed":
            return (*events[:half], b"data: {malformed\n\n", *events[half + 1 :])
        case _:
            return events


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def _complaint(request: Request) -> str:
    """As careless as real backends: it repeats the key and names the account."""
    return f"The mock was asked to fail (account org-mock, {request.header(b'authorization') or 'no key'})"
