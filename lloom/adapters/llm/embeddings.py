"""A backend's embeddings as events of a stream, like every other answer: one for each vector. It never computes one."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from lloom.core import sse
from lloom.core.api.embeddings import FLOAT_BYTES
from lloom.core.errors import CallerFault, RetryElsewhere

_NO_USAGE: Final = msgspec.Raw(b"null")


class _Item(Struct, frozen=True):
    index: int
    embedding: str | list[float]


class _List(Struct, frozen=True):
    data: list[_Item]
    usage: msgspec.Raw = _NO_USAGE


class _Wanted(Struct, frozen=True):
    dimensions: int | None = None


_list = msgspec.json.Decoder(_List)
_wanted = msgspec.json.Decoder(_Wanted)


def events(answer: bytes, request: bytes) -> Iterator[bytes]:
    """The events of OpenAI's list of embeddings in `answer`, which may hold floats or base64.

    RetryElsewhere if it is none, CallerFault if the vectors have not the dimensions that `request` wants: some backends
    do not know that field, and say nothing.
    """
    try:
        found = _list.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RetryElsewhere("the backend's answer is no list of embeddings", code="backend_error") from None
    return written(((item.index, _packed(item.embedding)) for item in found.data), bytes(found.usage), request)


def written(vectors: Iterable[tuple[int, bytes]], usage: bytes, request: bytes) -> Iterator[bytes]:
    """The events of `vectors`, each float32 in little-endian order, and of `usage` (JSON). CallerFault as `events`."""
    wanted = _dimensions(request)
    for index, vector in vectors:
        if wanted is not None and len(vector) != wanted * FLOAT_BYTES:
            raise CallerFault(
                "this model has no other dimensions than its own", code="invalid_value", param="dimensions"
            )
        text = base64.b64encode(vector)
        yield sse.event(b'{"object":"embedding","index":%d,"embedding":"%b"}' % (index, text))
    if usage != b"null":
        yield sse.event(b'{"choices":[],"usage":%b}' % usage)
    yield sse.event(sse.DONE)


def pack(vector: Sequence[float]) -> bytes:
    """The floats as float32; RetryElsewhere if they are none."""
    try:
        return struct.pack(f"<{len(vector)}f", *vector)
    except (struct.error, OverflowError):
        raise RetryElsewhere("the backend's vectors are none of floats", code="backend_error") from None


def _packed(embedding: str | Sequence[float]) -> bytes:
    if not isinstance(embedding, str):
        return pack(embedding)
    try:
        return binascii.a2b_base64(embedding, strict_mode=True)
    except (binascii.Error, ValueError):
        raise RetryElsewhere("the backend's vectors are no base64", code="backend_error") from None


def _dimensions(request: bytes) -> int | None:
    try:
        return _wanted.decode(request).dimensions
    except msgspec.DecodeError:
        return None  # the backend took it
