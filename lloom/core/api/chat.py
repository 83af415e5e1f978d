"""OpenAI's chat completions as callers write them: what routing needs, what contradicts itself. It never reads an answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from lloom.core.api.reading import contradiction, decode, missing, model_id
from lloom.core.api.request import ApiRequest

_Positive = Annotated[int, Meta(ge=1, lt=1 << 32)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]

_PART_FEATURES: Final = {"image_url": "vision", "input_audio": "audio", "video_url": "video", "file": "file"}
_FORMAT_FEATURES: Final = {"json_object": "json", "json_schema": "json_schema"}


class _Part(Struct):
    type: Literal["text", "refusal", "image_url", "input_audio", "video_url", "file"]
    text: str = ""


class _Message(Struct):
    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[_Part] | None = None


class _Function(Struct):
    name: Annotated[str, Meta(min_length=1)]


class _Tool(Struct):
    type: Literal["function", "custom"]
    function: _Function | None = None


class _ToolChoice(Struct):
    type: str


class _Schema(Struct):
    name: Annotated[str, Meta(min_length=1)]


class _Format(Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None


class _StreamOptions(Struct):
    include_usage: bool | None = None


class _Body(Struct):
    """The fields of OpenAI's chat completions that routing needs or whose form it vouches for; others pass unseen."""

    model: str
    messages: Annotated[list[_Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: _Positive | None = None
    max_completion_tokens: _Positive | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    tools: Annotated[list[_Tool], Meta(max_length=1024)] | None = None
    functions: Annotated[list[_Function], Meta(max_length=1024)] | None = None
    tool_choice: Literal["none", "auto", "required"] | _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _Format | None = None


_decoder = msgspec.json.Decoder(_Body)


def parse(body: bytes) -> ApiRequest:
    """The request in `body` (JSON); CallerFault names the field that is wrong."""
    asked = decode(body, _decoder)
    _check(asked)
    return ApiRequest(
        operation="chat",
        body=body,
        model=model_id(asked.model),
        stream=bool(asked.stream),
        include_usage=asked.stream_options is not None and bool(asked.stream_options.include_usage),
        choices=asked.n or 1,
        max_output=asked.max_completion_tokens or asked.max_tokens,
        text_bytes=sum(len(text.encode()) for text in _texts(asked)),
        features=frozenset(_features(asked)),
    )


def _check(asked: _Body) -> None:
    """CallerFault for what contradicts itself, field by field right."""
    for number, message in enumerate(asked.messages):
        if message.content is None and message.role != "assistant":
            raise missing(f"messages[{number}].content")
    for number, tool in enumerate(asked.tools or ()):
        if tool.type == "function" and tool.function is None:
            raise missing(f"tools[{number}].function")
    form = asked.response_format
    if form is not None and form.type == "json_schema" and form.json_schema is None:
        raise missing("response_format.json_schema")
    if asked.stream_options is not None and not asked.stream:
        raise contradiction("stream_options", "'stream_options' is only allowed when 'stream' is true.")
    if asked.top_logprobs is not None and not asked.logprobs:
        raise contradiction("top_logprobs", "'top_logprobs' is only allowed when 'logprobs' is true.")
    if asked.tool_choice not in (None, "none", "auto") and not asked.tools:
        raise contradiction("tool_choice", "'tool_choice' is only allowed when 'tools' are specified.")
    limits = {asked.max_tokens, asked.max_completion_tokens} - {None}
    if len(limits) > 1:
        raise contradiction("max_tokens", "'max_tokens' and 'max_completion_tokens' differ; send one of them.")


def _texts(asked: _Body) -> Iterator[str]:
    for message in asked.messages:
        if isinstance(message.content, str):
            yield message.content
        else:
            yield from (part.text for part in message.content or ())


def _features(asked: _Body) -> Iterator[str]:
    if asked.tools or asked.functions:
        yield "tools"
    if asked.logprobs:
        yield "logprobs"
    if asked.response_format is not None and asked.response_format.type in _FORMAT_FEATURES:
        yield _FORMAT_FEATURES[asked.response_format.type]
    for message in asked.messages:
        if isinstance(message.content, list):
            yield from (_PART_FEATURES[part.type] for part in message.content if part.type in _PART_FEATURES)
