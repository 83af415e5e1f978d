"""What a server that speaks OpenAI says of its models, whatever kind of server it is. It spends no tokens."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import msgspec
from msgspec import Raw, Struct

from lloom.adapters.llm.failure import failure, unreachable
from lloom.core.errors import RetryElsewhere
from lloom.core.lineup import LARGEST, Known
from lloom.core.messages import FROM_EXECUTOR
from lloom.core.settings import Feature, OpenAIBackend

ANSWER_SECONDS: Final = 5.0
"""For one answer, the connection included."""
MAX_LIST: Final = 8 * 1024 * 1024
"""Bytes. OpenRouter's list of models has half a megabyte."""
MAX_MODELS: Final = 4096
DETAILS: Final = 4
"""Models that Ollama is asked about at once."""

_MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_NO_LIST: Final = frozenset({400, 403, 404, 405, 410, 501})
"""Statuses of servers that chat and yet list nothing; 403 is what a key gets that may do no more than chat."""
_CHATTY: Final = frozenset({"chat", "llm", "vlm", "model"})
"""Types that Together (chat) and LM Studio (llm, vlm) give models that take chats."""

# Features by the words that servers have for them.
_OPENROUTER: Final[dict[str, Feature]] = {
    "tools": "tools",
    "response_format": "json",
    "structured_outputs": "json_schema",
    "logprobs": "logprobs",
    "seed": "seed",
    "reasoning": "reasoning",
}
_MODALITIES: Final[dict[str, Feature]] = {"image": "vision", "audio": "audio"}
_CAPABILITIES: Final[dict[str, Feature]] = {
    "tools": "tools",
    "tool_use": "tools",
    "function_calling": "tools",
    "vision": "vision",
    "audio": "audio",
    "thinking": "reasoning",
    "reasoning": "reasoning",
}
_OLLAMA: Final[tuple[Feature, ...]] = ("json", "json_schema", "seed")
_LMSTUDIO: Final[tuple[Feature, ...]] = ("json_schema", "seed")
"""What these two can do with every model."""


class _Meta(Struct, frozen=True):
    """llama.cpp's: what it was started with, and what the model was trained for."""

    n_ctx: int | None = None
    n_ctx_train: int | None = None


class _Provider(Struct, frozen=True):
    max_completion_tokens: int | None = None


class _Architecture(Struct, frozen=True):
    input_modalities: list[str] = []


class _Entry(Struct, frozen=True):
    """One model, in the words of vLLM, llama.cpp, Groq, Together, OpenRouter, Mistral and LM Studio."""

    id: str
    type: str | None = None
    max_model_len: int | None = None
    meta: _Meta | None = None
    context_window: int | None = None
    context_length: int | None = None
    loaded_context_length: int | None = None
    max_context_length: int | None = None
    max_completion_tokens: int | None = None
    top_provider: _Provider | None = None
    architecture: _Architecture | None = None
    supported_parameters: list[str] | None = None
    capabilities: list[str] | dict[str, Any] | None = None


class _Name(Struct, frozen=True):
    id: str


class _List(Struct, frozen=True):
    data: list[Raw]


class _Details(Struct, frozen=True):
    """Ollama's /api/show; `parameters` are lines of a model file: `num_ctx 8192`."""

    capabilities: list[str] | None = None
    model_info: dict[str, Any] = {}
    parameters: str = ""


class Listing:
    """The list of one server, asked for again and again."""

    def __init__(self, backend: OpenAIBackend, key: str | None) -> None:
        self._base = backend.base_url.rstrip("/")
        self._provider = backend.provider
        self._headers = {FROM_EXECUTOR: "1"} | ({"authorization": f"Bearer {key}"} if key else {})
        self._details: dict[str, Known] = {}

    async def ask(self) -> dict[str, Known] | None:
        """What it serves, by its own names; None if it has no list.

        RetryElsewhere if it cannot be reached, fails, or refuses the key.
        """
        async with aiohttp.ClientSession(headers=self._headers, cookie_jar=aiohttp.DummyCookieJar()) as session:
            found = _parse(await self._get(session, f"{self._base}/models"))
            if found is None:
                return None
            if self._provider == "lm_studio":
                more = _parse(await self._get(session, f"{self._root}/api/v0/models")) or {}
                found |= {name: _with(known, _LMSTUDIO) for name, known in more.items() if name in found}
            if self._provider == "ollama":
                await self._show(session, set(found))
                found |= self._details
        return found

    @property
    def _root(self) -> str:
        return self._base.removesuffix("/v1")

    async def _show(self, session: aiohttp.ClientSession, names: set[str]) -> None:
        """Has Ollama tell of the models it has not told of yet."""
        self._details = {name: known for name, known in self._details.items() if name in names}
        places = asyncio.Semaphore(DETAILS)

        async def show(name: str) -> None:
            try:
                async with places:
                    body = await self._get(session, f"{self._root}/api/show", {"model": name})
            except RetryElsewhere:
                return  # it is asked again the next time
            if (known := _details(body)) is not None:
                self._details[name] = known

        async with asyncio.TaskGroup() as group:
            for name in names - self._details.keys():
                group.create_task(show(name))

    async def _get(self, session: aiohttp.ClientSession, url: str, question: Mapping[str, str] | None = None) -> bytes:
        """The body of the answer; empty where the server does not know the question."""
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                # A redirect would carry the key to somebody else.
                session.request("POST" if question else "GET", url, json=question, allow_redirects=False) as response,
            ):
                body = await _body(response)
        except TimeoutError:
            raise unreachable(f"no answer from {self._base} within {ANSWER_SECONDS:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: no URL, or a key that is no header
            raise unreachable(f"{self._base} ({type(error).__name__})") from None
        if response.status == 200:
            return body
        if response.status in _NO_LIST:
            return b""
        if response.status == 508:
            raise RetryElsewhere("it is a Lloom gateway: requests would go in a circle", status=508, code="loop")
        found = failure(response.status, b"", response.headers)
        raise found if isinstance(found, RetryElsewhere) else unreachable(f"status {response.status}")


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """At most `MAX_LIST` bytes of it."""
    body = bytearray()
    while len(body) < MAX_LIST and (data := await response.content.read(MAX_LIST - len(body))):
        body += data
    return bytes(body)


def _parse(body: bytes) -> dict[str, Known] | None:
    """OpenAI's list, or a bare one (Together); None if it is neither. An entry that is none is left out."""
    try:
        entries = msgspec.json.decode(body, type=list[Raw] | _List)
    except _MALFORMED:
        return None
    found: dict[str, Known] = {}
    for raw in (entries.data if isinstance(entries, _List) else entries)[:MAX_MODELS]:
        if (known := _entry(raw)) is not None:
            found[known[0]] = known[1]
    return found


def _entry(raw: Raw) -> tuple[str, Known] | None:
    """Name of a model, and what is said of it; details in a form of its own are nothing said."""
    try:
        entry = msgspec.json.decode(raw, type=_Entry)
    except _MALFORMED:
        try:
            return msgspec.json.decode(raw, type=_Name).id, Known()
        except _MALFORMED:
            return None
    return entry.id, _known(entry)


def _known(entry: _Entry) -> Known:
    meta, provider = entry.meta or _Meta(), entry.top_provider or _Provider()
    context = _first(
        entry.max_model_len,
        meta.n_ctx,
        meta.n_ctx_train,
        entry.loaded_context_length,
        entry.context_window,
        entry.context_length,
        entry.max_context_length,
    )
    return Known(
        context=context,
        max_output=_first(entry.max_completion_tokens, provider.max_completion_tokens),
        features=_features(entry),
        chat=_chats(entry),
    )


def _chats(entry: _Entry) -> bool | None:
    if isinstance(entry.capabilities, dict) and isinstance(entry.capabilities.get("completion_chat"), bool):
        return bool(entry.capabilities["completion_chat"])
    return None if entry.type is None else entry.type in _CHATTY


def _features(entry: _Entry) -> tuple[Feature, ...] | None:
    """None where the server says nothing of them."""
    able = entry.capabilities
    if isinstance(able, dict):
        able = [name for name, can in able.items() if can is True]
    modalities = entry.architecture.input_modalities if entry.architecture else []
    found = [
        *(_CAPABILITIES[word] for word in able or () if word in _CAPABILITIES),
        *(_OPENROUTER[word] for word in entry.supported_parameters or () if word in _OPENROUTER),
        *(_MODALITIES[word] for word in modalities if word in _MODALITIES),
        *(("vision",) if entry.type == "vlm" else ()),
    ]
    told = able is not None or entry.supported_parameters is not None
    return tuple(dict.fromkeys(found)) if told else None


def _with(known: Known, always: tuple[Feature, ...]) -> Known:
    return msgspec.structs.replace(known, features=tuple(dict.fromkeys((*(known.features or ()), *always))))


def _details(body: bytes) -> Known | None:
    """Ollama's word on one model."""
    try:
        said = msgspec.json.decode(body, type=_Details)
    except _MALFORMED:
        return None
    lines = [line.split() for line in said.parameters.splitlines()]
    chosen = [
        int(line[1]) for line in lines if len(line) == 2 and line[0] == "num_ctx" and re.fullmatch(r"\d{1,10}", line[1])
    ]
    trained = [value for key, value in said.model_info.items() if key.endswith(".context_length")]
    able = said.capabilities
    features = [_CAPABILITIES[word] for word in able or () if word in _CAPABILITIES]
    known = Known(
        context=_first(*chosen, *(value for value in trained if isinstance(value, int))),
        features=None if able is None else tuple(features),
        chat=None if able is None else "completion" in able,
    )
    return _with(known, _OLLAMA)


def _first(*limits: int | None) -> int | None:
    """The first one that can be true."""
    return next((limit for limit in limits if limit is not None and 1 <= limit <= LARGEST), None)
