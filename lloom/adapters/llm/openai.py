"""Backends that speak OpenAI (OpenAI itself, vLLM, llama.cpp, Ollama, LM Studio): bytes through. It never models a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Final

from lloom.adapters.llm import body as bodies
from lloom.adapters.llm import embeddings
from lloom.adapters.llm.engine import catalogue, pick, secret
from lloom.adapters.llm.listing import Listing
from lloom.adapters.llm.model_map import ModelMap
from lloom.adapters.llm.upstream import Target, Upstream
from lloom.core.api.request import Operation
from lloom.core.errors import ConfigError
from lloom.core.lineup import Common, Lineup, Served, is_pattern, lineup, unlisted
from lloom.core.rates import Limits
from lloom.core.settings import Model, OpenAIBackend

OPERATIONS: Final = frozenset[Operation]({"chat", "completions", "embeddings"})


class OpenAIEngine:
    """An `Engine` over any URL that speaks OpenAI."""

    def __init__(self, name: str, backend: OpenAIBackend, most: int) -> None:
        self.name = name
        self.limits = Limits(backend.parallel, backend.requests_per_minute, backend.tokens_per_minute)
        self._backend = backend
        self._common = Common(name, backend.parallel, most)
        self._models: Mapping[str, Model | None] = {}
        self._served: Mapping[str, Served] = {}
        self._map = ModelMap({})
        self._listing: Listing | None = None
        self._upstream: Upstream | None = None

    async def start(self) -> None:
        backend = self._backend
        if not backend.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"llm.{self.name}.base_url: {backend.base_url!r} does not start with http:// or https://")
        self._models = catalogue(self.name, backend.models, OPERATIONS)
        key = secret(self.name, backend.key_env)
        if backend.provider is not None:
            self._map = await asyncio.to_thread(ModelMap.of, backend.provider)
        target = Target(
            base_url=backend.base_url,
            key=key,
            connections=backend.parallel,
            connect_seconds=backend.connect_seconds,
            idle_seconds=backend.idle_seconds,
            reuse=True,
        )
        self._listing, self._upstream = Listing(backend, key), Upstream(target)

    async def look(self) -> Lineup:
        assert self._listing is not None, "start() comes first"
        listed = await self._listing.ask()
        found = lineup(self._common, self._models, listed or {}, self._map.get)
        self._served = found.served
        return replace(found, remarks=(*found.remarks, *self._remarks(listed)))

    def stream(self, operation: Operation, model: str, body: bytes) -> AsyncGenerator[bytes, None]:
        assert self._upstream is not None, "start() comes first"
        content = fields(operation, body, pick(self._served, model))
        if operation == "chat":
            self._put_in_its_words(content)
        return ask(self._upstream, operation, bodies.encode(content))

    async def close(self) -> None:
        if self._upstream is not None:
            await self._upstream.close()

    def _put_in_its_words(self, content: bodies.Fields) -> None:
        bodies.call_limit(content, self._backend.limit_field)
        if self._backend.prefill_fields and bodies.prefilled(content):
            for name, value in self._backend.prefill_fields.items():
                bodies.put(content, name, value)

    def _remarks(self, listed: Mapping[str, object] | None) -> list[str]:
        """What does not fit between YAML and the server's list."""
        where = self._backend.base_url
        if listed is None:
            patterns = [key for key in self._models if is_pattern(key)]
            return (
                [f"llm.{self.name}: {where} has no list of models, so {', '.join(patterns)} finds none"]
                if patterns
                else []
            )
        missing = ", ".join(unlisted(self._models, listed))
        return [f"llm.{self.name}: {where} does not list {missing}"] if missing else []


def ask(upstream: Upstream, operation: Operation, body: bytes) -> AsyncGenerator[bytes, None]:
    """The answer to a rewritten request, as `Engine.stream` gives it."""
    return _embed(upstream, body) if operation == "embeddings" else upstream.stream(operation, body)


async def _embed(upstream: Upstream, body: bytes) -> AsyncGenerator[bytes, None]:
    for event in embeddings.events(await upstream.whole("embeddings", body), body):
        yield event


def rewrite(operation: Operation, body: bytes, served: Served) -> bytes:
    """`body` for a backend that takes all of OpenAI's fields. CallerFault if it is malformed."""
    return bodies.encode(fields(operation, body, served))


def fields(operation: Operation, body: bytes, served: Served) -> bodies.Fields:
    """`body` for the backend: its own name of the model, streamed, within the model's limit. CallerFault if it is malformed."""
    content = bodies.fields(body)
    bodies.drop(content, bodies.PRIVATE)
    bodies.address(operation, content, served.name)
    bodies.limit(operation, content, served.offer.max_output)
    return content
