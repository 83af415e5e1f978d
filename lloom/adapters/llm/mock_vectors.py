"""The mock's embeddings: unit vectors that depend on the text alone. It never waits."""

from __future__ import annotations

import base64
import random
import struct
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from lloom.adapters.llm.mock_answers import ENCODING, EXAGGERATION, read
from lloom.core import tokens
from lloom.core.api.prompts import Prompt, Prompts, split

DIMENSIONS: Final = 64


class Embed(Struct, frozen=True):
    """What the mock reads of an embeddings request."""

    input: Prompts
    model: str = "mock"
    dimensions: Annotated[int, Meta(ge=1, le=4096)] | None = None
    encoding_format: str | None = None


_embed = msgspec.json.Decoder(Embed)


def model(body: bytes) -> str:
    """The model that is asked. CallerFault when the body is no embeddings request."""
    return read(_embed, body).model


def embeddings(body: bytes, exaggerate: bool) -> bytes:
    """The answer, with ten times the tokens if told to `exaggerate`. CallerFault when the body is no embeddings request."""
    request = read(_embed, body)
    inputs = split("input", request.input)
    size = request.dimensions or DIMENSIONS
    data = [
        {"object": "embedding", "index": i, "embedding": _vector(text, size, request.encoding_format)}
        for i, text in enumerate(inputs)
    ]
    used = sum(tokens.count(text, ENCODING) if isinstance(text, str) else len(text) for text in inputs)
    used *= EXAGGERATION if exaggerate else 1
    usage = {"prompt_tokens": used, "total_tokens": used}
    return msgspec.json.encode({"object": "list", "data": data, "model": request.model, "usage": usage})


def _vector(text: Prompt, size: int, encoding: str | None) -> list[float] | str:
    rng = random.Random(msgspec.json.encode(text))  # noqa: S311 - a direction, no secret
    raw = [rng.gauss(0, 1) for _ in range(size)]
    norm = sum(x * x for x in raw) ** 0.5
    unit = [x / norm for x in raw]
    return base64.b64encode(struct.pack(f"<{size}f", *unit)).decode() if encoding == "base64" else unit
