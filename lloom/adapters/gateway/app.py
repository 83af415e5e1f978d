"""The ASGI application: routes, who may call, errors and request ids. What the routes do stands in the modules beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec
from loguru import logger
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from lloom.adapters.gateway import endpoint
from lloom.adapters.gateway.counting import Counting
from lloom.adapters.gateway.exchange import Exchange, Gone
from lloom.adapters.gateway.failures import failure
from lloom.adapters.gateway.health import Health
from lloom.adapters.gateway.metrics import Metrics
from lloom.adapters.gateway.models import listing
from lloom.core.api.anthropic import Messages
from lloom.core.api.dialect import Dialect
from lloom.core.api.openai import ChatCompletions
from lloom.core.api.reading import unknown_model
from lloom.core.errors import CallerFault, LloomError
from lloom.core.identity import NodeId
from lloom.core.messages import FROM_EXECUTOR
from lloom.core.offer import ModelOffer
from lloom.core.settings import GatewaySettings

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_LOCAL_HOSTS: Final = frozenset({b"127.0.0.1", b"[::1]", b"localhost"})
_NOBODY: Final = 499
"""Status for the metrics when the caller left before an answer (nginx's number)."""

_USUAL: Final[Dialect] = ChatCompletions()
_MESSAGES: Final[Dialect] = Messages()
DIALECTS: Final[dict[str, Dialect]] = {"/v1/chat/completions": _USUAL, "/v1/messages": _MESSAGES}
"""Of the endpoints that ask the network, by their paths."""

_COUNT_TOKENS: Final = "/v1/messages/count_tokens"
_OF_ERRORS: Final = {**DIALECTS, _COUNT_TOKENS: _MESSAGES}
"""In what errors are told; whoever asks for anything else is taken for a user of chat completions."""

_Handler = Callable[[Exchange], Awaitable[None]]


class Backend(endpoint.Router, Protocol):
    """What is needed of `lloom.adapters.routing.router.Router`."""

    async def models(self) -> list[tuple[NodeId, ModelOffer]]: ...


class Gateway:
    """The gateway as an ASGI application. `health` is asked at every /health."""

    def __init__(self, backend: Backend, health: Callable[[], Health], settings: GatewaySettings) -> None:
        self.metrics = Metrics()
        self._backend = backend
        self._health = health
        self._settings = settings
        self._local = settings.host in LOOPBACK
        self._router = Router(
            [
                *(
                    _route(path, "POST", endpoint.Endpoint(dialect, backend, settings, self.metrics))
                    for path, dialect in DIALECTS.items()
                ),
                _route(_COUNT_TOKENS, "POST", Counting(backend.models, settings)),
                _route("/v1/models", "GET", self._models),
                _route("/v1/models/{id:path}", "GET", self._model),
                _route("/health", "GET", self._tell_health),
                _route("/metrics", "GET", self._tell_metrics),
            ],
            redirect_slashes=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP exchange, from its headers to the last byte of its answer."""
        assert scope["type"] == "http", "the server is started for HTTP alone"
        exchange = Exchange(scope, receive, send, _OF_ERRORS.get(scope["path"], _USUAL))
        scope["app"], scope["lloom.exchange"] = self, exchange
        began = asyncio.get_running_loop().time()
        with logger.contextualize(request=exchange.request_id.decode()):
            try:
                await self._answer(exchange, receive, send)
            finally:
                route = scope.get("lloom.route", "none")
                self.metrics.answered(route, exchange.status or _NOBODY, asyncio.get_running_loop().time() - began)

    async def _answer(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        try:
            self._admit(exchange)
            await self._router(exchange.scope, receive, send)
        except Gone:
            logger.debug("the caller left")
        except HTTPException as error:
            what = f"{exchange.scope['method']} {exchange.scope['path'][:200]}"
            await self._fail(exchange, HTTPException(error.status_code, f"{error.detail}: {what}", error.headers))
        except LloomError as error:
            await self._fail(exchange, error)
        except Exception as error:  # noqa: BLE001 - the boundary of a request
            logger.exception("a request failed")
            await self._fail(exchange, error)

    async def _fail(self, exchange: Exchange, error: Exception) -> None:
        """Tells the caller, if it listens: it may be its slowness that failed."""
        try:
            async with asyncio.timeout(self._settings.drain_seconds):
                await exchange.fail(failure(error))
        except TimeoutError:
            logger.debug("the caller does not read the error")

    def _admit(self, exchange: Exchange) -> None:
        """Keeps out circles, and web pages that the user's browser happens to show: the gateway spends in the user's name."""
        if exchange.header(FROM_EXECUTOR.encode()) is not None:
            raise CallerFault(
                "An executor has this gateway as its backend, so the request would go round in a circle. Name the model's own "
                "server in its base_url.",
                status=508,
                code="loop",
            )
        host = (exchange.header(b"host") or b"").lower()
        if self._local and host and _without_port(host) not in _LOCAL_HOSTS:
            raise CallerFault(
                f"This gateway is for this machine only; it does not answer for the host {host.decode(errors='replace')!r}. "
                "Use http://127.0.0.1 or http://localhost.",
                status=403,
                code="wrong_host",
            )
        kind = (exchange.header(b"content-type") or b"").split(b";")[0].strip().lower()
        if exchange.scope["method"] == "POST" and exchange.header(b"origin") and kind != b"application/json":
            raise CallerFault(
                "A request from a web page must have the content type application/json.",
                status=415,
                code="unsupported_media_type",
            )

    async def _models(self, exchange: Exchange) -> None:
        models = listing(await self._backend.models())
        await exchange.reply(200, msgspec.json.encode({"object": "list", "data": models}), [])

    async def _model(self, exchange: Exchange) -> None:
        name = exchange.scope["path_params"]["id"].lower()
        model = next((each for each in listing(await self._backend.models()) if each["id"] == name), None)
        if model is None:
            raise unknown_model(name)
        await exchange.reply(200, msgspec.json.encode(model), [])

    async def _tell_health(self, exchange: Exchange) -> None:
        health = self._health()
        await exchange.reply(200 if health.status == "ok" else 503, msgspec.json.encode(health), [])

    async def _tell_metrics(self, exchange: Exchange) -> None:
        kind = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
        await exchange.reply(200, self.metrics.text(), [], kind)


class _Endpoint:
    """A handler of exchanges as the ASGI application that Starlette routes to."""

    def __init__(self, path: str, handler: _Handler) -> None:
        self._path = path
        self._handler = handler

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        scope["lloom.route"] = self._path
        await self._handler(scope["lloom.exchange"])


def _route(path: str, method: str, handler: _Handler) -> Route:
    endpoint: ASGIApp = _Endpoint(path, handler)
    return Route(path, endpoint, methods=[method])


def _without_port(host: bytes) -> bytes:
    if host.startswith(b"["):
        return host[: host.find(b"]") + 1]
    return host.split(b":")[0]
