"""What the mock answers to a chat: a request's JSON in, an OpenAI-like answer out, always the same. It never waits."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from lloom.adapters.llm import mock_logprobs, mock_script
from lloom.core import sse, tokens
from lloom.core.errors import CallerFault

T = TypeVar("T")

ENCODING: Final = "o200k_base"
CREATED: Final = 1_700_000_000
"""A fixed time, so that equal requests get equal bytes."""
EXAGGERATION: Final = 10
CACHED_BODY: Final = 16 * 1024
"""Answers to bodies up to this size are kept: a benchmark asks the same again and again."""

# Each of these is one token, with a blank before it and without, in every encoding of core.tokens.
_LIST: Final = (
    "the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not "
    "what all were we when your can said there use an each which she do how their if will up other about out many then "
    "them these so some her would make like him into time has look two more write go see number no way could people my "
    "than first water been call who its now find long down day did get come made may part"
)
WORDS: Final = tuple(_LIST.split())

Limit = Annotated[int, Meta(ge=1)] | None


class Chat(Struct, frozen=True):
    """What the mock reads of a chat request."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1)]
    model: str = "mock"
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    max_tokens: Limit = None
    max_completion_tokens: Limit = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """`events` are the whole SSE events of a stream, `plain` the JSON of one that is not streamed."""

    model: str
    stream: bool
    events: tuple[bytes, ...]
    plain: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What is said, token by token; `tool` is the function called, whose arguments the pieces then are."""

    pieces: tuple[str, ...]
    tool: str | None
    finish: str
    usage: dict[str, Any]


_chat = msgspec.json.Decoder(Chat)
_encode = msgspec.json.encode


def chat(body: bytes, length: int, exaggerate: bool) -> Answer:
    """The answer to a chat, `length` tokens unless the request limits it; usage ten times too high if told to `exaggerate`.

    CallerFault when the body is no chat request.
    """
    return (_kept if len(body) <= CACHED_BODY else _answer)(body, length, exaggerate)


def read(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """`body` by `decoder`; CallerFault says what is wrong with it."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CallerFault(str(error), code="invalid_request_error") from error


def envelope(kind: str, name: str, model: str) -> dict[str, Any]:
    """What every object of an answer begins with."""
    return {"id": name, "object": kind, "created": CREATED, "model": model, "system_fingerprint": "fp_mock"}


def models(names: tuple[str, ...], details: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The answer of `/v1/models`; `details` by name."""
    common = {"object": "model", "created": CREATED, "owned_by": "lloom"}
    data = [{"id": name, **common, **details.get(name, {})} for name in names]
    return _encode({"object": "list", "data": data})


def _answer(body: bytes, length: int, exaggerate: bool) -> Answer:
    request = read(_chat, body)
    asked, said = _parted(request.messages)
    digest = hashlib.sha256(_encode([asked, request.tools])).hexdigest()
    words = random.Random(digest).choices(WORDS, k=length)  # noqa: S311 - a text, no secret
    tool, pieces = _scripted(request, asked, said) or _made_up(request, words, said)
    reply = _reply(request, tool, pieces, EXAGGERATION if exaggerate else 1)
    name = f"chatcmpl-{digest[:24]}"
    if not request.stream:
        return Answer(request.model, False, (), _encode(_completion(request, name, reply)))
    chunks = (_encode(chunk) for chunk in _chunks(request, name, reply))
    return Answer(request.model, True, (*map(sse.event, chunks), sse.event(sse.DONE)), b"")


_kept = lru_cache(maxsize=256)(_answer)


def _parted(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """The messages that are answered, and the beginning of the answer, if the last one is the assistant's (a prefill)."""
    last = messages[-1]
    if last.get("role") == "assistant" and len(messages) > 1 and isinstance(last.get("content"), str):
        return messages[:-1], last["content"]
    return messages, ""


def _rest(pieces: list[str], said: str) -> list[str]:
    """What is left to say; all of it, if something else was said."""
    whole = "".join(pieces)
    if not whole.startswith(said):
        return pieces
    rest, start = [], 0
    for piece in pieces:
        if new := piece[max(0, len(said) - start) :]:
            rest.append(new)
        start += len(piece)
    return rest


Said = tuple[str | None, list[str]]
"""The function called, if one is, and the tokens of its arguments or of the text."""


def _scripted(request: Chat, asked: list[dict[str, Any]], said: str) -> Said | None:
    """What the caller has the mock do, unless it forces another function or none."""
    if request.tool_choice not in (None, "auto", "required"):
        return None
    match mock_script.step(asked, {function["name"] for function in _functions(request)}):
        case mock_script.Call(name, arguments):
            return name, tokens.split(arguments, ENCODING)
        case str(text):
            return None, _rest(tokens.split(text, ENCODING), said)
    return None


def _made_up(request: Chat, words: list[str], said: str) -> Said:
    tool = _called(request)
    kind = (request.response_format or {}).get("type", "text")
    if tool is not None:
        return tool["name"], tokens.split(_json(_instance(tool.get("parameters"), words)), ENCODING)
    if kind == "text":
        return None, _rest(words[:1] + [f" {word}" for word in words[1:]], said)
    schema = request.response_format["json_schema"].get("schema") if kind == "json_schema" else None  # type: ignore[index]
    return None, tokens.split(_json(_instance(schema, words) if schema else {"answer": " ".join(words)}), ENCODING)


def _reply(request: Chat, tool: str | None, pieces: list[str], factor: int) -> Reply:
    limit = request.max_completion_tokens or request.max_tokens or len(pieces)
    finish = "length" if limit < len(pieces) else "tool_calls" if tool else "stop"
    made = len(pieces[:limit]) + (tokens.count(tool, ENCODING) if tool else 0)
    asked = tokens.count_messages(request.messages, request.tools or [], ENCODING)
    usage = {
        "prompt_tokens": asked * factor,
        "completion_tokens": made * factor,
        "total_tokens": (asked + made) * factor,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
    return Reply(tuple(pieces[:limit]), tool, finish, usage)


def _functions(request: Chat) -> list[dict[str, Any]]:
    found = (tool.get("function") for tool in request.tools or [])
    return [function for function in found if isinstance(function, dict) and isinstance(function.get("name"), str)]


def _called(request: Chat) -> dict[str, Any] | None:
    """The function to call: forced by `tool_choice`, or named in the last message if that is the user's."""
    functions = _functions(request)
    choice, last = request.tool_choice, request.messages[-1]
    if isinstance(choice, dict):
        wanted = choice.get("function", {}).get("name")
        return next((f for f in functions if f["name"] == wanted), None)
    if choice == "required":
        return functions[0] if functions else None
    if choice == "none" or last.get("role") != "user":
        return None
    return next((f for f in functions if f["name"] in str(last.get("content"))), None)


def _instance(schema: Any, words: list[str]) -> Any:
    """A value that fits `schema`, as far as its types, enums and properties go."""
    if not isinstance(schema, Mapping):
        return {}
    if isinstance(choices := schema.get("enum"), list) and choices:
        return choices[0]
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: _instance(value, words[1:] or words) for name, value in schema.get("properties", {}).items()}
    if kind == "array":
        return [_instance(schema.get("items"), words)]
    return {"string": words[0], "integer": len(words), "number": len(words) / 2, "boolean": True}.get(str(kind))


def _completion(request: Chat, name: str, reply: Reply) -> dict[str, Any]:
    said = [] if reply.tool else [_logprobs(request, place, piece) for place, piece in enumerate(reply.pieces)]
    logprobs = {"content": [each["content"][0] for each in said if each], "refusal": None} if any(said) else None
    text = "".join(reply.pieces)
    message: dict[str, Any] = {"role": "assistant", "content": None if reply.tool else text, "refusal": None}
    if reply.tool:
        function = {"name": reply.tool, "arguments": text}
        message["tool_calls"] = [{"id": _call_id(name), "type": "function", "function": function}]
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": reply.finish}
    return envelope("chat.completion", name, request.model) | {"choices": [choice], "usage": reply.usage}


def _chunks(request: Chat, name: str, reply: Reply) -> Iterator[dict[str, Any]]:
    wanted = bool((request.stream_options or {}).get("include_usage"))
    head = envelope("chat.completion.chunk", name, request.model)
    usage = {"usage": None} if wanted else {}
    for number, (delta, finish) in enumerate(_deltas(name, reply)):
        logprobs = _logprobs(request, number - 1, delta["content"]) if delta.get("content") else None
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        yield head | {"choices": [choice]} | usage
    if wanted:
        yield head | {"choices": [], "usage": reply.usage}


def _logprobs(request: Chat, place: int, piece: str) -> dict[str, Any] | None:
    """How likely one token was, if that was asked for."""
    if not request.logprobs:
        return None
    said = mock_logprobs.entry(request.model, place, piece, WORDS, request.top_logprobs or 0)
    return {"content": [said], "refusal": None}


def _deltas(name: str, reply: Reply) -> Iterator[tuple[dict[str, Any], str | None]]:
    first: dict[str, Any] = {"role": "assistant", "content": None if reply.tool else "", "refusal": None}
    if reply.tool:
        function = {"name": reply.tool, "arguments": ""}
        first["tool_calls"] = [{"index": 0, "id": _call_id(name), "type": "function", "function": function}]
    yield first, None
    for piece in reply.pieces:
        yield (
            {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} if reply.tool else {"content": piece},
            None,
        )
    yield {}, reply.finish


def _call_id(name: str) -> str:
    return f"call_{name[-24:]}"


def _json(value: Any) -> str:
    return _encode(value).decode()
