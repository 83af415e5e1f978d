"""The dialect of OpenAI's chat completions, which is the network's own: events pass through it unparsed."""

from __future__ import annotations

import http
from typing import Final

import msgspec
from msgspec import Struct

from lloom.core.api.chat import parse
from lloom.core.api.chunks import usage_event
from lloom.core.api.dialect import Failure, Served
from lloom.core.api.request import ApiRequest
from lloom.core.completion import Fold
from lloom.core.messages import Done
from lloom.core.sse import DONE, Splitter, event, payloads


class OpenAI:
    """What is the same at all of OpenAI's endpoints: errors are `{"error": {message, type, param, code}}`."""

    id_header: Final = b"x-request-id"
    waiting: Final = b": waiting\n\n"

    def refusal(self, failure: Failure, request_id: str) -> bytes:  # noqa: ARG002 - it stands in a header
        """See `Dialect`."""
        return envelope(failure)


class ChatCompletions(OpenAI):
    """POST /v1/chat/completions."""

    def read(self, body: bytes, request_id: str) -> ChatAsked:  # noqa: ARG002 - the backend's ids are the answer's
        """See `Dialect`."""
        return ChatAsked(parse(body))


class ChatAsked(Struct, frozen=True):
    """A request for a chat completion."""

    request: ApiRequest

    def stream(self) -> EventStream:
        """See `Asked`."""
        return EventStream("chat.completion.chunk", self.request.include_usage)

    def whole(self) -> ChatWhole:
        """See `Asked`."""
        return ChatWhole()


class EventStream:
    """Events as they came; then usage if it was asked for, who served (a comment), and the end mark."""

    __slots__ = ("_first", "_include_usage", "_kind")

    def __init__(self, kind: str, include_usage: bool) -> None:
        """`kind`: what a chunk is an `object` of."""
        self._kind = kind
        self._include_usage = include_usage
        self._first = b""

    def feed(self, data: bytes) -> bytes:
        """See `Stream`."""
        self._first = self._first or data
        return data

    def end(self, done: Done, served: Served) -> bytes:
        """See `Stream`."""
        usage = usage_event(_first_chunk(self._first), self._kind, done) if self._include_usage else b""
        return usage + told(served, done) + event(DONE)

    def failed(self, failure: Failure) -> bytes:
        """See `Stream`."""
        return event(envelope(failure))


class ChatWhole:
    """A `chat.completion`."""

    __slots__ = ("_fold",)

    def __init__(self) -> None:
        self._fold = Fold()

    def feed(self, data: bytes) -> None:
        """See `Whole`."""
        self._fold.feed(data)

    def end(self, done: Done) -> bytes:
        """See `Whole`."""
        return self._fold.completion(done)


def envelope(failure: Failure) -> bytes:
    """OpenAI's error object as JSON."""
    error = {
        "message": failure.message,
        "type": _type(failure),
        "param": failure.param,
        "code": failure.code,
    }
    return msgspec.json.encode({"error": error})


def told(served: Served, done: Done) -> bytes:
    """A comment within a stream that says who served it."""
    known = {
        "executor": served.executor,
        "attempts": served.attempts,
        "input_tokens": done.input_tokens,
        "output_tokens": done.output_tokens,
    }
    return b": lloom " + msgspec.json.encode(known) + b"\n\n"


def _type(failure: Failure) -> str:
    status = failure.status
    if failure.code == "insufficient_quota":
        return failure.code
    if status == http.HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "invalid_request_error" if status < http.HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"


def _first_chunk(first: bytes) -> bytes:
    return next(filter(None, payloads(Splitter().block(first))), b"{}")
