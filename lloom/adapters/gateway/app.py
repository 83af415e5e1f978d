"""The ASGI application: routes, errors and request ids. What the routes do stands in the modules beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from loguru import logger
from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from lloom.adapters.gateway.counting import FORMS, Counting
from lloom.adapters.gateway.door import VISIT, Door, Guests
from lloom.adapters.gateway.endpoint import Endpoint
from lloom.adapters.gateway.exchange import Exchange, Gone
from lloom.adapters.gateway.explaining import PATH, Explaining
from lloom.adapters.gateway.failures import failure
from lloom.adapters.gateway.health import Health
from lloom.adapters.gateway.metered import Backend, Metered
from lloom.adapters.gateway.metrics import Metrics
from lloom.adapters.gateway.models import listing, page
from lloom.adapters.machine.log import REQUEST
from lloom.core.api.anthropic import Messages
from lloom.core.api.completions import Completions
from lloom.core.api.dialect import Dialect
from lloom.core.api.embeddings import Embeddings
from lloom.core.api.openai import ChatCompletions
from lloom.core.api.reading import unknown_model
from lloom.core.api.responses import Responses
from lloom.core.errors import CallerFault, LloomError
from lloom.core.settings import GatewaySettings

_NOBODY: Final = 499
"""Status for the metrics when the caller left before an answer (nginx's number)."""

_USUAL: Final[Dialect] = ChatCompletions()
_MESSAGES: Final[Dialect] = Messages()
DIALECTS: Final[dict[str, Dialect]] = {
    "/v1/chat/completions": _USUAL,
    "/v1/completions": Completions(),
    "/v1/embeddings": Embeddings(),
    "/v1/responses": Responses(),
    "/v1/messages": _MESSAGES,
}
"""Of the endpoints that ask the network, by their paths."""

_OF_ERRORS: Final = {**DIALECTS, "/v1/messages/count_tokens": _MESSAGES}
"""In what errors are told; whoever asks for anything else is taken for a user of chat completions."""

_Handler = Callable[[Exchange], Awaitable[None]]


class Gateway:
    """The gateway as an ASGI application. `health` is asked at every /health."""

    def __init__(
        self, router: Backend, health: Callable[[], Health], settings: GatewaySettings, guests: Guests | None = None
    ) -> None:
        self.metrics = Metrics()
        self._health = health
        self._settings = settings
        guests = guests or Guests()
        self._door = Door(settings.host, guests)
        self._backend = backend = Metered(router, settings.assumed_output, guests.spent)
        posts: dict[str, _Handler] = {
            **{path: Endpoint(dialect, backend, settings, self.metrics) for path, dialect in DIALECTS.items()},
            **{path: Counting(form, backend.offers, settings) for path, form in FORMS.items()},
        }
        self._usual: dict[tuple[str, str], ASGIApp] = {
            ("POST", path): _Endpoint(path, handler) for path, handler in posts.items()
        }
        """By method and path, for what need not be searched for."""
        self._router = Router(
            [
                *(_route(path, "POST", handler) for path, handler in posts.items()),
                *(_route("/v1/responses/{id:path}", method, _no_response) for method in ("GET", "POST", "DELETE")),
                _route("/v1/models", "GET", self._models),
                _route("/v1/models/{id:path}", "GET", self._model),
                _route(PATH, "GET", Explaining(router)),
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
        began = time.monotonic()
        REQUEST.set(exchange.request_id.decode())
        try:
            await self._answer(exchange, receive, send)
        finally:
            route = scope.get("lloom.route", "none")
            self.metrics.answered(route, exchange.status or _NOBODY, time.monotonic() - began)

    async def _answer(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        try:
            with self._door.visit(exchange):
                scope = exchange.scope
                app = self._usual.get((scope["method"], scope["path"]), self._router)
                await app(scope, receive, send)
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

    async def _models(self, exchange: Exchange) -> None:
        models = await self._listing()
        await exchange.reply(200, msgspec.json.encode(page(models)), [])

    async def _listing(self) -> list[dict[str, Any]]:
        return listing(await self._backend.models(), await self._backend.aliases(), self._backend.reputation)

    async def _model(self, exchange: Exchange) -> None:
        name = exchange.scope["path_params"]["id"].lower()
        model = next((each for each in await self._listing() if each["id"] == name), None)
        if model is None:
            raise unknown_model(name)
        await exchange.reply(200, msgspec.json.encode(model), [])

    async def _tell_health(self, exchange: Exchange) -> None:
        health = self._health()
        told = health if VISIT.get().known else {"status": health.status}
        await exchange.reply(200 if health.status == "ok" else 503, msgspec.json.encode(told), [])

    async def _tell_metrics(self, exchange: Exchange) -> None:
        if not VISIT.get().sees_all:
            raise CallerFault(
                "This key may not read the metrics (gateway.keys.*.metrics).", status=403, code="forbidden"
            )
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
    app: ASGIApp = _Endpoint(path, handler)
    return Route(path, app, methods=[method])


async def _no_response(_exchange: Exchange) -> None:
    raise CallerFault(
        "There is no such response: nothing is stored here (store is always false). Send the whole conversation as 'input'.",
        status=404,
        code="not_found",
    )
