"""GET /lloom/routing/{model}: whom the client would ask for a model now, and why. Only for those who may read the metrics."""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from lloom.adapters.gateway.door import VISIT
from lloom.adapters.gateway.exchange import Exchange
from lloom.core.api import affinity
from lloom.core.api.reading import model_id
from lloom.core.api.request import ApiRequest
from lloom.core.errors import CallerFault
from lloom.core.routing.explain import Verdict

PATH: Final = "/lloom/routing/{id:path}"


class Router(Protocol):
    """What is needed of `lloom.adapters.routing.router.Router`."""

    async def explain(self, request: ApiRequest) -> list[Verdict]: ...


class Explaining:
    """Explains by a short, plain chat; `x-lloom-session` is heard as with a real one."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def __call__(self, exchange: Exchange) -> None:
        """Answers one request; CallerFault (404) if nobody serves the model."""
        visit = VISIT.get()
        if not visit.sees_all:
            raise CallerFault("This key may not see how requests are routed.", status=403, code="forbidden")
        session = exchange.header(b"x-lloom-session")
        verdicts = await self._router.explain(
            ApiRequest(
                operation="chat",
                body=b"",
                model=model_id(exchange.scope["path_params"]["id"]),
                stream=True,
                include_usage=False,
                choices=1,
                max_output=None,
                text_bytes=0,
                features=frozenset(),
                affinity=affinity.named(session) if session else b"",
                caller=visit.name,
            )
        )
        await exchange.reply(200, msgspec.json.encode({"object": "list", "data": verdicts}), [])
