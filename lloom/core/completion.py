"""A chat answer: what its chunks amount to, and its plain form. It never waits and never trusts the executor's JSON."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.messages import Done
from lloom.core.sse import DONE, Splitter, event, payload

MAX_ANSWER: Final = 64 * 1024 * 1024
"""Bytes of events that are folded into one plain answer."""

_MAX_CALLS: Final = 1024

_TEXTS: Final = ("content", "reasoning_content", "reasoning", "refusal")


class _CalledFunction(Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct):
    index: Annotated[int, Meta(ge=0, lt=_MAX_CALLS)] | None = None
    id: str | None = None
    type: str | None = None
    function: _CalledFunction | None = None


class _Choice(Struct):
    index: Annotated[int, Meta(ge=0, lt=128)] = 0
    delta: dict[str, Any] | None = None
    finish_reason: str | None = None
    logprobs: dict[str, list[Any] | None] | None = None


class _Chunk(Struct):
    id: str | None = None
    created: int | float | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    choices: list[_Choice] | None = None
    error: msgspec.Raw | None = None


_decoder = msgspec.json.Decoder(_Chunk)
_object = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


def has_content(data: bytes) -> bool:
    """Whether a chunk (the payload of an event) carries text, reasoning, a refusal or part of a tool call.

    PeerFault if it is no chunk, RetryElsewhere if it is an error.
    """
    return any(
        any(delta.get(key) for key in _TEXTS) or bool(delta.get("tool_calls") or delta.get("function_call"))
        for choice in _chunk(data).choices or ()
        if (delta := choice.delta)
    )


def finishes(data: bytes) -> bool:
    """Whether a chunk ends one of its choices. Raises as `has_content`."""
    return any(choice.finish_reason for choice in _chunk(data).choices or ())


def usage(done: Done) -> dict[str, Any]:
    """OpenAI's usage object: the backend's own if it gave one, else from what the executor counted."""
    if done.usage:
        try:
            return _object.decode(done.usage)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise PeerFault("the executor reports a usage that is no JSON object", code="bad_usage") from error
    return {
        "prompt_tokens": done.input_tokens,
        "completion_tokens": done.output_tokens,
        "total_tokens": done.input_tokens + done.output_tokens,
    }


def usage_event(head: bytes, done: Done) -> bytes:
    """The event that ends a stream with `include_usage`: no choices, the usage, and id, model, time of the first chunk `head`."""
    first = _chunk(head)
    chunk: dict[str, Any] = {
        "id": first.id or "",
        "object": "chat.completion.chunk",
        "created": first.created or 0,
        "model": first.model or "",
        "choices": [],
        "usage": usage(done),
    }
    return event(_encode(chunk))


class Fold:
    """Joins the chunks of a stream into one `chat.completion`, however the bytes are cut. Errors as in `has_content`."""

    __slots__ = ("_bytes", "_choices", "_head", "_splitter")

    def __init__(self) -> None:
        self._splitter = Splitter()
        self._choices: dict[int, _Sum] = {}
        self._head = _Chunk()
        self._bytes = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self._bytes += len(data)
        if self._bytes > MAX_ANSWER:
            raise PeerFault("an answer without end", code="bad_stream")
        for found in self._splitter.feed(data):
            chunk = payload(found)
            if chunk and chunk != DONE:
                self._add(_chunk(chunk))

    def completion(self, done: Done) -> bytes:
        """The whole as JSON, with usage from `done`. PeerFault if the answer has no end: it was cut."""
        if not self._choices or not all(choice.finish_reason for choice in self._choices.values()):
            raise PeerFault("the answer broke off before its end", code="bad_stream")
        head = self._head
        whole = {
            "id": head.id or "",
            "object": "chat.completion",
            "created": head.created or 0,
            "model": head.model or "",
            "choices": [self._choices[index].choice(index) for index in sorted(self._choices)],
            "usage": usage(done),
            "system_fingerprint": head.system_fingerprint,
        }
        if head.service_tier is not None:
            whole["service_tier"] = head.service_tier
        return _encode(whole)

    def _add(self, chunk: _Chunk) -> None:
        head = self._head
        if not head.id:
            head.id, head.created, head.model = chunk.id, chunk.created, chunk.model
        head.system_fingerprint = chunk.system_fingerprint or head.system_fingerprint
        head.service_tier = chunk.service_tier or head.service_tier
        for choice in chunk.choices or ():
            found = self._choices.get(choice.index)
            if found is None:
                found = self._choices[choice.index] = _Sum()
            found.add(choice)


class _Sum:
    """One choice as it grows. Texts stay in pieces until the end: adding up strings takes quadratic time."""

    __slots__ = ("calls", "finish_reason", "function", "logprobs", "others", "role", "texts")

    def __init__(self) -> None:
        self.role = "assistant"
        self.texts: dict[str, list[str]] = {}
        self.calls: dict[int, _CallSum] = {}
        self.function: _CallSum | None = None
        self.logprobs: dict[str, list[Any] | None] | None = None
        self.others: dict[str, Any] = {}
        self.finish_reason: str | None = None

    def add(self, choice: _Choice) -> None:
        self.finish_reason = choice.finish_reason or self.finish_reason
        if choice.delta:
            for key, value in choice.delta.items():
                if value is not None:
                    self._merge(key, value)
        if choice.logprobs:
            self._add_logprobs(choice.logprobs)

    def _add_logprobs(self, logprobs: dict[str, list[Any] | None]) -> None:
        for key, entries in logprobs.items():
            self.logprobs = self.logprobs or {}
            kept = self.logprobs.get(key)
            if kept is None:
                self.logprobs[key] = entries
            else:
                kept.extend(entries or ())

    def choice(self, index: int) -> dict[str, Any]:
        texts = {key: "".join(pieces) for key, pieces in self.texts.items()}
        called = bool(self.calls or self.function)
        message = {"role": self.role, "content": None if called else "", "refusal": None, **texts, **self.others}
        if called and not message["content"]:
            message["content"] = None
        if self.calls:
            message["tool_calls"] = [self.calls[number].call() for number in sorted(self.calls)]
        if self.function is not None:
            message["function_call"] = self.function.function()
        return {"index": index, "message": message, "logprobs": self.logprobs, "finish_reason": self.finish_reason}

    def _merge(self, key: str, value: Any) -> None:
        if key == "tool_calls":
            for position, call in enumerate(_convert(value, list[_Call])):
                self._call(call, position)
        elif key == "function_call":
            self.function = self.function or _CallSum()
            self.function.add(_Call(function=_convert(value, _CalledFunction)))
        elif key == "role":
            self.role = _convert(value, str)
        elif isinstance(value, str):
            self.texts.setdefault(key, []).append(value)
        elif isinstance(value, list) and isinstance(self.others.get(key), list):
            self.others[key] += value
        else:
            self.others[key] = value

    def _call(self, call: _Call, position: int) -> None:
        number = position if call.index is None else call.index
        self.calls.setdefault(number, _CallSum()).add(call)


class _CallSum:
    """One tool call as it grows."""

    __slots__ = ("arguments", "id", "name", "type")

    def __init__(self) -> None:
        self.id = ""
        self.type = "function"
        self.name = ""
        self.arguments: list[str] = []

    def add(self, call: _Call) -> None:
        self.id = call.id or self.id
        self.type = call.type or self.type
        function = call.function
        if function is None:
            return
        if function.name and function.name != self.name:  # some backends repeat the name in every chunk
            self.name += function.name
        self.arguments.append(function.arguments or "")

    def call(self) -> dict[str, Any]:
        return {"id": self.id, "type": self.type, "function": self.function()}

    def function(self) -> dict[str, str]:
        return {"name": self.name, "arguments": "".join(self.arguments)}


def _chunk(data: bytes) -> _Chunk:
    try:
        chunk = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise PeerFault("the executor sent a chunk that is none", code="bad_stream") from error
    if chunk.error is not None and bytes(chunk.error) != b"null":
        raise RetryElsewhere("the executor failed in the middle of its answer")
    return chunk


def _convert(value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise PeerFault(f"the executor sent a chunk with a wrong field: {error}", code="bad_stream") from error
