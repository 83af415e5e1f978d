"""What an answer took, by kinds of tokens that dialects beside OpenAI's chat tell apart. It counts nothing itself."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from lloom.core.errors import PeerFault
from lloom.core.messages import Done

_Count = Annotated[int, Meta(ge=0, lt=1 << 53)]


class _Input(Struct, frozen=True):
    cached_tokens: _Count | None = None


class _Output(Struct, frozen=True):
    reasoning_tokens: _Count | None = None


class _Usage(Struct, frozen=True):
    prompt_tokens: _Count = 0
    completion_tokens: _Count = 0
    prompt_tokens_details: _Input | None = None
    completion_tokens_details: _Output | None = None


class Usage(Struct, frozen=True):
    """Tokens. `cached` are some of `input`, `reasoning` some of `output`."""

    input: int
    cached: int
    output: int
    reasoning: int


_decoder = msgspec.json.Decoder(_Usage)


def usage(done: Done) -> Usage:
    """The backend's own numbers if it gave some, else what the executor counted; PeerFault if they are none."""
    if not done.usage:
        return Usage(done.input_tokens, 0, done.output_tokens, 0)
    try:
        told = _decoder.decode(done.usage)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise PeerFault("the executor reports a usage that is none", code="bad_usage") from error
    cached = told.prompt_tokens_details.cached_tokens if told.prompt_tokens_details else 0
    reasoning = told.completion_tokens_details.reasoning_tokens if told.completion_tokens_details else 0
    return Usage(
        input=told.prompt_tokens,
        cached=min(cached or 0, told.prompt_tokens),
        output=told.completion_tokens,
        reasoning=min(reasoning or 0, told.completion_tokens),
    )
