"""An endpoint that asks the network: from a caller's JSON to the router, and back as events or as one answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from typing import Final, Protocol

from msgspec.structs import replace

from lloom.adapters.gateway.door import VISIT
from lloom.adapters.gateway.exchange import Exchange
from lloom.adapters.gateway.metrics import Metrics
from lloom.adapters.gateway.replaying import Replaying
from lloom.core.api import affinity
from lloom.core.api.dialect import Asked, Dialect, Headers, Served, Whole
from lloom.core.api.request import ApiRequest
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import Done
from lloom.core.settings import GatewaySettings

_SESSION: Final = b"x-lloom-session"
"""Header by which a caller says which requests belong together, for the sake of caches."""


class Answer(Protocol):
    """What is needed of `lloom.adapters.routing.answer.Answer`."""

    @property
    def executor(self) -> NodeId: ...
    @property
    def attempts(self) -> int: ...
    @property
    def deadline(self) -> float: ...
    @property
    def first(self) -> bytes: ...
    @property
    def done(self) -> Done | None: ...
    @property
    def routing(self) -> str: ...
    async def read(self) -> bytes | None: ...
    async def folded(self, make: Callable[[], Whole]) -> bytes: ...
    async def close(self) -> None: ...


class Router(Protocol):
    """What is needed of `lloom.adapters.routing.router.Router`."""

    async def ask(self, request: ApiRequest) -> Answer: ...


class Endpoint:
    """Serves requests in one dialect. Closing the HTTP connection closes the answer, which stops the executor's work."""

    def __init__(self, dialect: Dialect, router: Router, settings: GatewaySettings, metrics: Metrics) -> None:
        self._dialect = dialect
        self._router = router
        self._settings = settings
        self._metrics = metrics
        self._replaying = Replaying(settings)

    async def __call__(self, exchange: Exchange) -> None:
        """Answers one request; errors pass through as they are."""
        body = await exchange.body(self._settings.max_body, self._settings.body_seconds)
        asked = self._dialect.read(body, exchange.request_id.decode())
        request, session = asked.request, exchange.header(_SESSION)
        if session:
            request = replace(request, affinity=affinity.named(session))

        async def answer() -> None:
            way = self._stream if request.stream else self._plain
            self._metrics.running += 1
            try:
                await exchange.unless_gone(way(exchange, asked, request))
            finally:
                self._metrics.running -= 1

        await self._replaying.once(exchange, VISIT.get().name, body, answer)

    async def _plain(self, exchange: Exchange, asked: Asked, request: ApiRequest) -> None:
        began = time.monotonic()
        answer = await self._router.ask(request)
        try:
            self._metrics.first_token(time.monotonic() - began)
            whole = await answer.folded(asked.whole)
        finally:
            await answer.close()
        done = answer.done or Done()
        self._metrics.tokens(done)
        await exchange.reply(200, whole, _headers(answer))

    async def _stream(self, exchange: Exchange, asked: Asked, request: ApiRequest) -> None:
        began = time.monotonic()
        stream = asked.stream()
        exchange.failed = stream.failed
        async with self._first_content(exchange, request) as answer:
            self._metrics.first_token(time.monotonic() - began)
            if not exchange.status:
                await exchange.begin(_headers(answer))
            try:
                async with asyncio.timeout_at(answer.deadline), self._kept_alive(exchange):
                    await exchange.write(stream.feed(answer.first))
                    while (data := await answer.read()) is not None:
                        await exchange.write(stream.feed(data))
            except TimeoutError as error:
                raise RetryElsewhere("The answer was not read in time.", status=504, code="deadline") from error
        done = answer.done or Done()
        self._metrics.tokens(done)
        await exchange.end(stream.end(done, _served(answer)))

    @contextlib.asynccontextmanager
    async def _first_content(self, exchange: Exchange, request: ApiRequest) -> AsyncIterator[Answer]:
        """The answer once its first content is here; closed at the end, whatever happens.

        The status line waits for it, but not for ever: proxies give up on silent servers.
        """
        asking = asyncio.ensure_future(self._router.ask(request))
        try:
            await asyncio.wait({asking}, timeout=self._settings.hold_headers_seconds)
            if not asking.done():
                await exchange.begin([])
            while not asking.done():
                await exchange.aside(self._dialect.waiting)
                await asyncio.wait({asking}, timeout=self._settings.keep_alive_seconds)
            yield asking.result()
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.wait({asking})
            if not asking.cancelled() and asking.exception() is None:
                await asking.result().close()

    @contextlib.asynccontextmanager
    async def _kept_alive(self, exchange: Exchange) -> AsyncIterator[None]:
        """Signs of life while nothing comes."""
        task = asyncio.create_task(self._fill(exchange))
        try:
            yield
        finally:
            task.cancel()

    async def _fill(self, exchange: Exchange) -> None:
        pause = self._settings.keep_alive_seconds
        while True:
            silent = time.monotonic() - exchange.written_at
            if silent >= pause:
                await exchange.aside(self._dialect.waiting)
                silent = 0.0
            await asyncio.sleep(pause - silent)


@lru_cache(maxsize=1024)
def _name(executor: NodeId) -> str:
    return checksum(executor)


def _served(answer: Answer) -> Served:
    return Served(_name(answer.executor), answer.attempts)


def _headers(answer: Answer) -> Headers:
    return [
        (b"x-lloom-executor", _name(answer.executor).encode()),
        (b"x-lloom-attempts", b"%d" % answer.attempts),
        (b"x-lloom-routing", answer.routing.encode()),
    ]
