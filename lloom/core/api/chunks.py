"""The events of an answer, whichever operation it is of: chunks of a text, or a vector each. It never folds any."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.messages import Done
from lloom.core.sse import DONE, Splitter, event, payloads

MAX_ANSWER: Final = 64 * 1024 * 1024
"""Bytes of events that are folded into one plain answer."""

_NOTHING: Final = b"null"
"""llama.cpp begins so where it has several prompts."""


class Choice(Struct, gc=False):
    """A piece of one choice: `delta` of a chat, `text` of a completion."""

    index: Annotated[int, Meta(ge=0, lt=128)] = 0
    delta: dict[str, Any] | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: dict[str, list[Any] | None] | None = None


class Chunk(Struct, gc=False):
    """What is read of an event. `index` and `embedding` (float32, little-endian, in base64) are those of a vector."""

    id: str | None = None
    object: str | None = None
    created: int | float | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    choices: list[Choice] | None = None
    index: int | None = None
    embedding: str | None = None
    error: msgspec.Raw | None = None


_decoder = msgspec.json.Decoder(Chunk)
_object = msgspec.json.Decoder(dict[str, Any])


def read(data: bytes) -> Chunk:
    """The chunk in the payload of an event. PeerFault if it is none, RetryElsewhere if it is an error."""
    try:
        chunk = _decoder.decode(data) if data != _NOTHING else Chunk()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise PeerFault("the executor sent a chunk that is none", code="bad_stream") from error
    if chunk.error is not None and bytes(chunk.error) != b"null":
        raise RetryElsewhere("the executor failed in the middle of its answer")
    return chunk


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


def usage_event(head: bytes, kind: str, done: Done) -> bytes:
    """The event that ends a stream with `include_usage`: no choices, the usage, and id, model, time of the first chunk `head`.

    `kind`: what it is an `object` of.
    """
    first = read(head)
    chunk: dict[str, Any] = {
        "id": first.id or "",
        "object": kind,
        "created": first.created or 0,
        "model": first.model or "",
        "choices": [],
        "usage": usage(done),
    }
    return event(msgspec.json.encode(chunk))


class Reader:
    """The chunks of an answer, however its bytes are cut."""

    __slots__ = ("_bytes", "_splitter")

    def __init__(self) -> None:
        self._splitter = Splitter()
        self._bytes = 0

    def feed(self, data: bytes) -> list[Chunk]:
        """Those that the next bytes complete. Raises as `read`; PeerFault for more than MAX_ANSWER."""
        self._bytes += len(data)
        if self._bytes > MAX_ANSWER:
            raise PeerFault("an answer without end", code="bad_stream")
        return [read(chunk) for chunk in payloads(self._splitter.block(data)) if chunk and chunk != DONE]


def merged(kept: dict[str, list[Any] | None] | None, more: dict[str, list[Any] | None] | None) -> Any:
    """The logprobs of a choice with those of its next chunk; they are lists under several names."""
    if more is None:
        return kept
    kept = {} if kept is None else kept
    for key, entries in more.items():
        known = kept.get(key)
        if known is None:
            kept[key] = entries
        else:
            known.extend(entries or ())
    return kept
