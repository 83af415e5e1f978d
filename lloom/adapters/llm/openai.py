"""Backends that speak OpenAI (OpenAI itself, vLLM, llama.cpp, Ollama, LM Studio): bytes through. It never models a request."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Final

from lloom.adapters.llm import body as bodies
from lloom.adapters.llm import embeddings
from lloom.adapters.llm.engine import catalogue, offers, secret
from lloom.adapters.llm.upstream import Target, Upstream
from lloom.core.api.request import Operation
from lloom.core.errors import ConfigError
from lloom.core.offer import ModelOffer
from lloom.core.settings import Model, OpenAIBackend

OPERATIONS: Final = frozenset[Operation]({"chat", "completions", "embeddings"})


class OpenAIEngine:
    """An `Engine` over any URL that speaks OpenAI."""

    def __init__(self, name: str, backend: OpenAIBackend) -> None:
        self.name = name
        self._backend = backend
        self._models: Mapping[str, Model] = {}
        self._upstream: Upstream | None = None

    async def start(self) -> tuple[ModelOffer, ...]:
        backend = self._backend
        if not backend.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"llm.{self.name}.base_url: {backend.base_url!r} does not start with http:// or https://")
        self._models = catalogue(self.name, backend.models, OPERATIONS)
        target = Target(
            base_url=backend.base_url,
            key=secret(self.name, backend.key_env),
            connections=backend.parallel,
            connect_seconds=backend.connect_seconds,
            idle_seconds=backend.idle_seconds,
            reuse=True,
        )
        self._upstream = Upstream(target)
        return offers(self.name, self._models, backend.parallel)

    def stream(self, operation: Operation, model: str, body: bytes) -> AsyncGenerator[bytes, None]:
        assert self._upstream is not None, "start() comes first"
        return ask(self._upstream, operation, rewrite(operation, body, model, self._models[model]))

    async def close(self) -> None:
        if self._upstream is not None:
            await self._upstream.close()


def ask(upstream: Upstream, operation: Operation, body: bytes) -> AsyncGenerator[bytes, None]:
    """The answer to a rewritten request, as `Engine.stream` gives it."""
    return _embed(upstream, body) if operation == "embeddings" else upstream.stream(operation, body)


async def _embed(upstream: Upstream, body: bytes) -> AsyncGenerator[bytes, None]:
    for event in embeddings.events(await upstream.whole("embeddings", body), body):
        yield event


def rewrite(operation: Operation, body: bytes, name: str, model: Model) -> bytes:
    """`body` for the backend: its own name of the model, streamed, within the model's limit. CallerFault if it is malformed."""
    content = bodies.fields(body)
    bodies.drop(content, bodies.PRIVATE)
    bodies.address(operation, content, model.name or name)
    if model.max_output is not None:
        bodies.limit(operation, content, model.max_output)
    return bodies.encode(content)
