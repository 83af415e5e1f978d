"""The mock as a backend: its server within this process, reached over loopback like any other. It never leaves the machine."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from lloom.adapters.llm.engine import named, pick
from lloom.adapters.llm.mock_server import Behaviour, MockServer
from lloom.adapters.llm.openai import OPERATIONS, ask, rewrite
from lloom.adapters.llm.upstream import Target, Upstream
from lloom.core.api.request import Operation
from lloom.core.lineup import Lineup
from lloom.core.rates import Limits
from lloom.core.settings import MockBackend


class MockEngine:
    """An `Engine` over a `MockServer` of its own."""

    def __init__(self, name: str, backend: MockBackend) -> None:
        self.name = name
        self.limits = Limits(backend.parallel)
        self._backend = backend
        self._lineup = Lineup({})
        self._server: MockServer | None = None
        self._upstream: Upstream | None = None

    async def start(self) -> None:
        backend = self._backend
        self._lineup = named(self.name, backend.models, OPERATIONS, backend.parallel)
        pauses = (backend.first_token_seconds, backend.token_seconds)
        self._server = MockServer(Behaviour(tuple(self._lineup.served), backend.tokens, *pauses, backend.faults))
        await self._server.start("127.0.0.1", 0)
        target = Target(
            base_url=f"{self._server.url}/v1",
            key=None,
            connections=backend.parallel,
            connect_seconds=backend.idle_seconds,
            idle_seconds=backend.idle_seconds,
            reuse=True,
        )
        self._upstream = Upstream(target)

    async def look(self) -> Lineup:
        return self._lineup

    def stream(self, operation: Operation, model: str, body: bytes) -> AsyncGenerator[bytes, None]:
        assert self._upstream is not None, "start() comes first"
        return ask(self._upstream, operation, rewrite(operation, body, pick(self._lineup.served, model)))

    async def close(self) -> None:
        if self._upstream is not None and self._server is not None:
            await self._upstream.close()
            await self._server.close()
