"""The dialect of OpenAI's embeddings: one event for each vector, folded into a list of floats or base64. It computes none."""

from __future__ import annotations

import binascii
import math
import struct
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NoReturn

import msgspec
from msgspec import Meta, Struct

from lloom.core.api.chunks import Reader, usage
from lloom.core.api.openai import OpenAI
from lloom.core.api.prompts import Prompts, longest, split
from lloom.core.api.reading import contradiction, decode, model_id
from lloom.core.api.request import ApiRequest
from lloom.core.errors import PeerFault
from lloom.core.messages import Done

FLOAT_BYTES: Final = 4
"""Vectors travel as float32, little-endian, as OpenAI's base64 does."""
MAX_INPUTS: Final = 2048
MAX_DIMENSIONS: Final = 1 << 16

Format = Literal["float", "base64"]


class _Body(Struct, kw_only=True):
    """All fields of OpenAI's embeddings (its OpenAPI description, version 2.3.0). null stands for a field left out."""

    model: str
    input: Prompts
    dimensions: Annotated[int, Meta(ge=1, le=MAX_DIMENSIONS)] | None = None
    encoding_format: Format | None = None
    user: str | None = None


_decoder = msgspec.json.Decoder(_Body)


class Embeddings(OpenAI):
    """POST /v1/embeddings."""

    def read(self, body: bytes, request_id: str) -> EmbeddingsAsked:  # noqa: ARG002 - answers bear no id
        """See `Dialect`."""
        asked = decode(body, _decoder)
        request = _request(body, asked)
        return EmbeddingsAsked(request, asked.encoding_format or "float", asked.dimensions)


@dataclass(frozen=True, slots=True)
class EmbeddingsAsked:
    """A request for vectors, in which form, of how many dimensions (None: the model's own)."""

    request: ApiRequest
    form: Format
    dimensions: int | None

    def stream(self) -> NoReturn:
        """See `Asked`: `request.stream` is never true."""
        raise AssertionError("embeddings are not streamed to callers")

    def whole(self) -> EmbeddingsWhole:
        """See `Asked`."""
        return EmbeddingsWhole(self)


def _request(body: bytes, asked: _Body) -> ApiRequest:
    texts = split("input", asked.input)
    if len(texts) > MAX_INPUTS:
        raise contradiction("input", f"there are {len(texts)} texts, and at most {MAX_INPUTS} are taken.")
    if not all(texts):
        raise contradiction("input", "a text is empty.")
    return ApiRequest(
        operation="embeddings",
        body=body,
        model=model_id(asked.model),
        stream=False,
        include_usage=False,
        choices=1,
        max_output=0,
        text_bytes=longest(texts),
        features=frozenset(),
        prompts=len(texts),
    )


class EmbeddingsWhole:
    """OpenAI's list of embeddings."""

    __slots__ = ("_asked", "_reader", "_vectors")

    def __init__(self, asked: EmbeddingsAsked) -> None:
        self._asked = asked
        self._reader = Reader()
        self._vectors: dict[int, str | tuple[float, ...]] = {}

    def feed(self, data: bytes) -> None:
        """See `Whole`."""
        for chunk in self._reader.feed(data):
            index = chunk.index
            if index is None or chunk.embedding is None:
                continue
            if index in self._vectors or not 0 <= index < self._asked.request.prompts:
                raise PeerFault("the executor sent a vector of nothing that was asked", code="bad_stream")
            floats = _floats(chunk.embedding, self._asked.dimensions)
            self._vectors[index] = chunk.embedding if self._asked.form == "base64" else floats

    def end(self, done: Done) -> bytes:
        """See `Whole`."""
        if len(self._vectors) != self._asked.request.prompts:
            raise PeerFault("the answer broke off before its end", code="bad_stream")
        told = usage(done)
        told.pop("completion_tokens", None)
        whole = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": self._vectors[index]}
                for index in range(len(self._vectors))
            ],
            "model": self._asked.request.model,
            "usage": told,
        }
        return msgspec.json.encode(whole)


def _floats(text: str, dimensions: int | None) -> tuple[float, ...]:
    """The vector in `text` (base64); PeerFault if it is none, or not of `dimensions`."""
    try:
        packed = binascii.a2b_base64(text, strict_mode=True)
        floats = struct.unpack(f"<{len(packed) // FLOAT_BYTES}f", packed)
    except (ValueError, struct.error) as error:
        raise PeerFault("the executor sent a vector that is none", code="bad_stream") from error
    if not floats or not all(map(math.isfinite, floats)) or dimensions not in (None, len(floats)):
        raise PeerFault("the executor sent a vector of another form than was asked", code="bad_stream")
    return floats
