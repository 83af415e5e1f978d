"""OpenAI's chat completions as callers write them: what routing needs, what contradicts itself. It never reads an answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from lloom.core.api import affinity
from lloom.core.api import messages as talk
from lloom.core.api.fields import Generation
from lloom.core.api.messages import Message, Texts
from lloom.core.api.reading import contradiction, decode, missing, model_id
from lloom.core.api.request import ApiRequest
from lloom.core.api.tools import (
    Function,
    FunctionChoice,
    Identifier,
    Tool,
    ToolChoice,
    check_choice,
    check_function_choice,
)

_Positive = Annotated[int, Meta(ge=1, lt=1 << 32)]
_MetadataKey = Annotated[str, Meta(max_length=64)]
_MetadataValue = Annotated[str, Meta(max_length=512)]

_MAX_METADATA: Final = 16
_FORMAT_FEATURES: Final = {"json_object": "json", "json_schema": "json_schema"}


class _Schema(Struct):
    name: Identifier
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class _Format(Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None


class _Voice(Struct, forbid_unknown_fields=True):
    id: str


class _Audio(Struct):
    voice: str | _Voice
    format: Literal["wav", "aac", "mp3", "flac", "opus", "pcm16"]


class _Prediction(Struct):
    type: Literal["content"]
    content: str | Texts


class _Place(Struct):
    country: str | None = None
    region: str | None = None
    city: str | None = None
    timezone: str | None = None


class _Location(Struct):
    type: Literal["approximate"]
    approximate: _Place


class _WebSearch(Struct):
    user_location: _Location | None = None
    search_context_size: Literal["low", "medium", "high"] | None = None


class _ModerationMode(Struct):
    mode: Literal["score", "block"]


class _ModerationPolicy(Struct):
    input: _ModerationMode | None = None
    output: _ModerationMode | None = None


class _Moderation(Struct):
    model: str
    policy: _ModerationPolicy | None = None


class _CacheOptions(Struct):
    ttl: Literal["30m"] | None = None
    mode: Literal["implicit", "explicit"] | None = None


class _Body(Generation, kw_only=True):
    """All fields of OpenAI's chat completions (its OpenAPI description, version 2.3.0). null stands for a field left out.

    Fields that are not OpenAI's pass unseen: `top_k`, `min_p`, `repetition_penalty` and the like are a backend's to judge.
    """

    messages: Annotated[list[Message], Meta(min_length=1)]
    max_tokens: _Positive | None = None
    max_completion_tokens: _Positive | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[Function], Meta(min_length=1, max_length=128)] | None = None
    function_call: FunctionChoice | None = None
    response_format: _Format | None = None
    modalities: Annotated[list[Literal["text", "audio"]], Meta(min_length=1)] | None = None
    audio: _Audio | None = None
    prediction: _Prediction | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    store: bool | None = None
    metadata: dict[_MetadataKey, _MetadataValue] | None = None
    safety_identifier: Annotated[str, Meta(max_length=64)] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    prompt_cache_options: _CacheOptions | None = None
    web_search_options: _WebSearch | None = None
    moderation: _Moderation | None = None


_decoder = msgspec.json.Decoder(_Body)


def parse(body: bytes) -> ApiRequest:
    """The request in `body` (JSON); CallerFault names the field that is wrong."""
    asked = decode(body, _decoder)
    _check(asked)
    text_bytes = sum(len(text.encode()) for text in talk.texts(asked.messages))
    return ApiRequest(
        operation="chat",
        body=body,
        model=model_id(asked.model),
        stream=bool(asked.stream),
        include_usage=asked.include_usage,
        choices=asked.n or 1,
        max_output=asked.max_completion_tokens or asked.max_tokens,
        text_bytes=text_bytes,
        features=frozenset(_features(asked)),
        affinity=_affinity(asked, text_bytes),
    )


def _affinity(asked: _Body, text_bytes: int) -> bytes:
    """By the caller's key; else by all up to the first thing that a user says, which later turns repeat; else by who asks."""
    if asked.prompt_cache_key:
        return affinity.named(asked.prompt_cache_key)
    beginning = text_bytes >= affinity.LEAST and affinity.beginning(talk.texts(talk.opening(asked.messages)))
    who = asked.safety_identifier or asked.user
    return beginning or (affinity.named(who) if who else b"")


def _check(asked: _Body) -> None:
    """CallerFault for what contradicts itself, field by field right."""
    asked.check_stream()
    talk.check(asked.messages)
    check_choice(asked.tool_choice, asked.tools)
    check_function_choice(asked.function_call, asked.functions)
    form = asked.response_format
    if form is not None and form.type == "json_schema" and form.json_schema is None:
        raise missing("response_format.json_schema")
    if asked.top_logprobs is not None and not asked.logprobs:
        raise contradiction("top_logprobs", "'top_logprobs' is only allowed when 'logprobs' is true.")
    if asked.parallel_tool_calls is not None and not asked.tools:
        raise contradiction("parallel_tool_calls", "'parallel_tool_calls' is only allowed when 'tools' are specified.")
    if None not in (asked.max_tokens, asked.max_completion_tokens) and asked.max_tokens != asked.max_completion_tokens:
        raise contradiction("max_tokens", "'max_tokens' and 'max_completion_tokens' differ; send one of them.")
    if "audio" in (asked.modalities or ()) and asked.audio is None:
        raise missing("audio")
    if len(asked.metadata or ()) > _MAX_METADATA:
        raise contradiction("metadata", f"there are more than {_MAX_METADATA} pairs.")


def _features(asked: _Body) -> Iterator[str]:
    if asked.tools or asked.functions:
        yield "tools"
    if asked.logprobs:
        yield "logprobs"
    if asked.response_format is not None and asked.response_format.type in _FORMAT_FEATURES:
        yield _FORMAT_FEATURES[asked.response_format.type]
    if "audio" in (asked.modalities or ()):
        yield "audio"
    yield from talk.features(asked.messages)
