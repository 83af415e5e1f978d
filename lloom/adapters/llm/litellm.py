"""Every provider that does not speak OpenAI, through LiteLLM. It never lets a caller choose anything but the answer's shape.

LiteLLM costs 4 to 8 s and 200 MB to import, so `start` imports it, in a thread. Its stream is rewritten to OpenAI's wire
form: it drops keys that must be there as null and gives the usage chunk a choice.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, get_args

import msgspec
from loguru import logger

from lloom.adapters.llm import body as bodies
from lloom.adapters.llm import embeddings
from lloom.adapters.llm.engine import catalogue, pick, secret
from lloom.adapters.llm.failure import cut, failure, stalled
from lloom.adapters.llm.model_map import ModelMap
from lloom.core import sse
from lloom.core.api.request import Operation
from lloom.core.errors import CallerFault, ConfigError, LloomError, RetryElsewhere
from lloom.core.lineup import Common, Known, Lineup, Served, lineup
from lloom.core.rates import Limits
from lloom.core.settings import Feature, LiteLLMBackend, Model

T = TypeVar("T")

# Read while it is imported: else it downloads its price list, and loads a .env file from wherever it was started.
ENVIRONMENT: Final = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}

OPERATIONS: Final = frozenset[Operation]({"chat", "completions", "embeddings"})
_OBJECTS: Final[dict[Operation, str]] = {"chat": "chat.completion.chunk", "completions": "text_completion"}

PARAMETERS: Final[dict[Feature, str]] = {
    "tools": "tools",
    "json": "response_format",
    "json_schema": "response_format",
    "seed": "seed",
    "logprobs": "logprobs",
}
"""Features that LiteLLM lets through to a model only where it takes this parameter."""

LOGGERS: Final = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy")


class LiteLLMEngine:
    """An `Engine` over one provider of LiteLLM."""

    def __init__(self, name: str, backend: LiteLLMBackend, most: int) -> None:
        self.name = name
        self.limits = Limits(backend.parallel, backend.requests_per_minute, backend.tokens_per_minute)
        self._backend = backend
        self._common = Common(name, backend.parallel, most)
        self._models: Mapping[str, Model | None] = {}
        self._served: Mapping[str, Served] = {}
        self._map = ModelMap({})
        self._key: str | None = None
        self._litellm: Any = None

    async def start(self) -> None:
        self._models = catalogue(self.name, self._backend.models, OPERATIONS)
        self._key = secret(self.name, self._backend.key_env)
        self._litellm = await asyncio.to_thread(_import)
        if self._backend.provider not in {str(getattr(p, "value", p)) for p in self._litellm.provider_list}:
            raise ConfigError(f"llm.{self.name}.provider: LiteLLM knows no provider {self._backend.provider!r}")
        self._map = await asyncio.to_thread(ModelMap.of, self._backend.provider)

    async def look(self) -> Lineup:
        """Patterns stand for what the map has: few providers tell which models a key may use, and each in its own way."""
        chats = self._map.chats(datetime.now(UTC).date().isoformat())
        listed = dict.fromkeys(chats, Known())
        found = await asyncio.to_thread(lineup, self._common, self._models, listed, self._known)  # tens of milliseconds
        self._served = found.served
        return found

    def stream(self, operation: Operation, model: str, body: bytes) -> AsyncGenerator[bytes, None]:
        assert self._litellm is not None, "start() comes first"
        arguments = self._arguments(operation, model, body)
        match operation:
            case "chat":
                return self._chunks(operation, self._litellm.acompletion, arguments)
            case "completions":
                return self._chunks(operation, self._litellm.atext_completion, arguments)
            case "embeddings":
                return self._embeddings(arguments, body)

    async def close(self) -> None:
        if self._litellm is not None:
            await self._litellm.close_litellm_async_clients()

    async def _chunks(
        self, operation: Operation, call: Callable[..., Awaitable[Any]], arguments: Mapping[str, Any]
    ) -> AsyncGenerator[bytes, None]:
        answer = await self._wait(call(**arguments))
        # A wrapper of LiteLLM's around a stream has nothing to close it by.
        async with aclosing(getattr(answer, "completion_stream", answer) if operation == "completions" else answer):
            created: int | None = None
            while (chunk := await self._wait(anext(answer, None))) is not None:
                created = created or chunk.created
                for event in _events(operation, chunk, created):
                    yield sse.event(msgspec.json.encode(event))
        yield sse.event(sse.DONE)

    async def _embeddings(self, arguments: Mapping[str, Any], body: bytes) -> AsyncGenerator[bytes, None]:
        answer = await self._wait(self._litellm.aembedding(**arguments))
        try:
            vectors = [(int(item["index"]), embeddings.pack(item["embedding"])) for item in answer.data]
        except (KeyError, TypeError, ValueError):
            raise RetryElsewhere("the backend's answer is no list of embeddings", code="backend_error") from None
        usage = getattr(answer, "usage", None)
        told = usage.model_dump_json(exclude_none=True, warnings=False).encode() if usage is not None else b"null"
        for event in embeddings.written(vectors, told, body):
            yield event

    def _arguments(self, operation: Operation, model: str, body: bytes) -> dict[str, Any]:
        """The keyword arguments of LiteLLM's functions. The caller's are only those that shape the answer: others of the same
        call would send the key to an address of his choosing."""
        backend, served = self._backend, pick(self._served, model)
        content = bodies.fields(body)
        bodies.keep(content, bodies.STANDARD[operation])
        bodies.limit(operation, content, served.offer.max_output)
        bodies.address(operation, content, f"{backend.provider}/{served.name}")
        bodies.drop(content, ("encoding_format",))  # most providers have floats only
        own = {"api_key": self._key, "api_base": backend.base_url}
        return {
            **_decoded(operation, content),
            **backend.options,
            **{name: value for name, value in own.items() if value is not None},
            "max_retries": 0,
            "drop_params": False,
            "timeout": backend.idle_seconds,
            # Else every request with tools imports LiteLLM's own proxy, which is not installed.
            "_skip_mcp_handler": True,
        }

    def _known(self, name: str) -> Known | None:
        """What the map knows of a model, and LiteLLM itself: a feature that is not passed on is none."""
        known = self._map.get(name)
        if known is None:
            return None
        passed = self._litellm.get_supported_openai_params(model=name, custom_llm_provider=self._backend.provider) or ()
        able = {*(known.features or ()), "seed", "logprobs"} - {
            each for each, needs in PARAMETERS.items() if needs not in passed
        }
        features = tuple(each for each in get_args(Feature) if each in able)
        return msgspec.structs.replace(known, features=features)

    async def _wait(self, result: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._backend.idle_seconds):
                return await result
        except TimeoutError:
            raise stalled(self._backend.idle_seconds) from None
        except Exception as error:  # noqa: BLE001 - a library that raises whatever its providers' code raises
            raise self._explain(error) from None

    def _explain(self, error: Exception) -> LloomError:
        """LiteLLM's exceptions by their HTTP status: their classes do not tell (a 429 is a BadRequestError)."""
        known, status = self._litellm.exceptions, getattr(error, "status_code", None)
        if not isinstance(status, int) or not 400 <= status < 600:
            # Without the text: it may repeat the prompt.
            logger.error("llm={}: LiteLLM raised {}", self.name, type(error).__name__)
            return RetryElsewhere("the backend's answer was not understood", code="backend_error")
        if isinstance(error, known.Timeout):
            return stalled(self._backend.idle_seconds)
        if isinstance(error, known.MidStreamFallbackError) and status != 429:
            return cut("the provider's stream failed")
        headers = getattr(error, "litellm_response_headers", None) or {}
        if isinstance(error, known.UnsupportedParamsError):
            return CallerFault("the model does not support a parameter of this request", code="unsupported_parameter")
        return failure(status, _json_within(str(error)), dict(headers))


def _import() -> Any:
    """LiteLLM, made quiet and kept off the network."""
    os.environ.update(ENVIRONMENT)
    litellm: Any = importlib.import_module("litellm")
    litellm.suppress_debug_info = True
    litellm.disable_hf_tokenizer_download = True
    litellm.disable_streaming_logging = True
    litellm.turn_off_message_logging = True
    litellm.telemetry = False
    # A model may rightly say the same a hundred times; limits on length are the Worker's.
    litellm.REPEATED_STREAMING_CHUNK_LIMIT = sys.maxsize
    for name in LOGGERS:
        quiet = logging.getLogger(name)
        quiet.handlers.clear()
        quiet.disabled = True
    return litellm


def _decoded(operation: Operation, content: bodies.Fields) -> dict[str, Any]:
    values: dict[str, Any] = {name: msgspec.json.decode(value) for name, value in content.items()}
    if operation == "chat":
        _check_chat(values)
    return values


def _check_chat(values: Mapping[str, Any]) -> None:
    messages, tools = values.get("messages"), values.get("tools")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise CallerFault("messages must be a list of at least one message", param="messages", code="invalid_type")
    # Other kinds make LiteLLM itself call servers that the caller names.
    if tools and not all(isinstance(t, dict) and t.get("type") == "function" for t in tools):
        raise CallerFault("tools must be of type function", param="tools", code="invalid_value")


def _events(operation: Operation, chunk: Any, created: int) -> Iterator[dict[str, Any]]:
    """OpenAI's chunk objects for one of LiteLLM's; the usage chunk apart, without choices."""
    envelope = {
        "id": chunk.id,
        "object": _OBJECTS[operation],
        "created": created,
        "model": chunk.model,
        "system_fingerprint": getattr(chunk, "system_fingerprint", None),
    }
    key, content = ("text", _text) if operation == "completions" else ("delta", _delta)
    choices = [{"index": choice.index, key: content(choice), **_ending(choice)} for choice in chunk.choices]
    if any(choice[key] or choice["finish_reason"] for choice in choices):
        yield envelope | {"choices": choices, "usage": None}
    if (usage := getattr(chunk, "usage", None)) is not None:
        yield envelope | {"choices": [], "usage": usage.model_dump(exclude_none=True, warnings=False)}


def _delta(choice: Any) -> Any:
    delta = choice.delta.model_dump(exclude_none=True, warnings=False)
    delta.pop("provider_specific_fields", None)
    return delta


def _text(choice: Any) -> Any:
    return choice.text or ""


def _ending(choice: Any) -> dict[str, Any]:
    logprobs: Any = getattr(choice, "logprobs", None)
    return {
        "logprobs": logprobs.model_dump() if hasattr(logprobs, "model_dump") else logprobs,
        "finish_reason": choice.finish_reason,
    }


def _json_within(text: str) -> bytes:
    """LiteLLM writes "SomeError: ProviderException - {the provider's JSON}"."""
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1].encode() if 0 <= start < end else b""
