"""POST /v1/chat/completions: from the caller's JSON to the router, and back as events or as one answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any, Final, Protocol

import msgspec

from lloom.adapters.gateway.envelope import Headers
from lloom.adapters.gateway.exchange import Exchange
from lloom.adapters.gateway.metrics import Metrics
from lloom.core.api.chat import parse
from lloom.core.api.request import ApiRequest
from lloom.core.completion import Fold, usage_event
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import Done
from lloom.core.settings import GatewaySettings
from lloom.core.sse import DONE, Splitter, event, payload

_WAITING: Final = b"waiting"


class Answer(Protocol):
    """What is needed of `lloom.adapters.routing.answer.Answer`."""

    executor: NodeId
    attempts: int
    deadline: float
    first: bytes
    done: Done | None

    async def read(self) -> bytes | None: ...
    async def close(self) -> None: ...


class Router(Protocol):
    """What is needed of `lloom.adapters.routing.router.Router`."""

    async def ask(self, request: ApiRequest) -> Answer: ...


class Chat:
    """Serves chat completions. Closing the HTTP connection closes the answer, which stops the executor's work."""

    def __init__(self, router: Router, settings: GatewaySettings, metrics: Metrics) -> None:
        self._router = router
        self._settings = settings
        self._metrics = metrics

    async def __call__(self, exchange: Exchange) -> None:
        """Answers one request; errors pass through as they are."""
        body = await exchange.body(self._settings.max_body, self._settings.body_seconds)
        request = parse(body)
        work = self._stream(exchange, request) if request.stream else self._plain(exchange, request)
        with self._metrics.running():
            await exchange.unless_gone(work)

    async def _plain(self, exchange: Exchange, request: ApiRequest) -> None:
        began = asyncio.get_running_loop().time()
        async with contextlib.AsyncExitStack() as stack:
            answer = await self._router.ask(request)
            stack.push_async_callback(answer.close)
            self._metrics.first_token(asyncio.get_running_loop().time() - began)
            fold = Fold()
            fold.feed(answer.first)
            while (data := await answer.read()) is not None:
                fold.feed(data)
        done = answer.done or Done()
        self._metrics.tokens(done)
        await exchange.reply(200, fold.completion(done), _served_by(answer))

    async def _stream(self, exchange: Exchange, request: ApiRequest) -> None:
        began = asyncio.get_running_loop().time()
        async with self._first_content(exchange, request) as answer:
            self._metrics.first_token(asyncio.get_running_loop().time() - began)
            if not exchange.status:
                await exchange.begin(_served_by(answer))
            try:
                async with asyncio.timeout_at(answer.deadline), self._kept_alive(exchange):
                    await exchange.write(answer.first)
                    while (data := await answer.read()) is not None:
                        await exchange.write(data)
            except TimeoutError as error:
                raise RetryElsewhere("The answer was not read in time.", status=504, code="deadline") from error
        done = answer.done or Done()
        self._metrics.tokens(done)
        await exchange.end(_last_events(request, answer, done))

    @contextlib.asynccontextmanager
    async def _first_content(self, exchange: Exchange, request: ApiRequest) -> AsyncIterator[Answer]:
        """The answer once its first content is here; closed at the end, whatever happens.

        The status line waits for it, but not for ever: proxies give up on silent servers.
        """
        chat = asyncio.ensure_future(self._router.ask(request))
        try:
            await asyncio.wait({chat}, timeout=self._settings.hold_headers_seconds)
            if not chat.done():
                await exchange.begin([])
            while not chat.done():
                await exchange.comment(_WAITING)
                await asyncio.wait({chat}, timeout=self._settings.keep_alive_seconds)
            yield chat.result()
        finally:
            if not chat.done():
                chat.cancel()
                await asyncio.wait({chat})
            if not chat.cancelled() and chat.exception() is None:
                await chat.result().close()

    @contextlib.asynccontextmanager
    async def _kept_alive(self, exchange: Exchange) -> AsyncIterator[None]:
        """Comments while nothing comes."""
        task = asyncio.create_task(self._comment(exchange))
        try:
            yield
        finally:
            task.cancel()

    async def _comment(self, exchange: Exchange) -> None:
        loop, pause = asyncio.get_running_loop(), self._settings.keep_alive_seconds
        while True:
            silent = loop.time() - exchange.written_at
            if silent >= pause:
                await exchange.comment(_WAITING)
                silent = 0.0
            await asyncio.sleep(pause - silent)


@lru_cache(maxsize=1024)
def _name(executor: NodeId) -> str:
    return checksum(executor)


def _served_by(answer: Answer) -> Headers:
    return [
        (b"x-lloom-executor", _name(answer.executor).encode()),
        (b"x-lloom-attempts", b"%d" % answer.attempts),
    ]


def _last_events(request: ApiRequest, answer: Answer, done: Done) -> bytes:
    """Usage if it was asked for, who served the answer (a comment), and the end mark."""
    usage = usage_event(_first_chunk(answer.first), done) if request.include_usage else b""
    served: dict[str, Any] = {
        "executor": _name(answer.executor),
        "attempts": answer.attempts,
        "input_tokens": done.input_tokens,
        "output_tokens": done.output_tokens,
    }
    return usage + b": lloom " + msgspec.json.encode(served) + b"\n\n" + event(DONE)


def _first_chunk(first: bytes) -> bytes:
    return next((data for found in Splitter().feed(first) if (data := payload(found))), b"{}")
