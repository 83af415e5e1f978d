"""The mock's completions: some words after each prompt, always the same. It never waits."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from lloom.adapters.llm.mock_answers import CACHED_BODY, ENCODING, EXAGGERATION, WORDS, Answer, envelope, read
from lloom.core import sse, tokens
from lloom.core.api.prompts import Prompt, Prompts, split


class Completion(Struct, frozen=True):
    """What the mock reads of a completion request."""

    prompt: Prompts
    model: str = "mock"
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    n: Annotated[int, Meta(ge=1, le=16)] | None = None
    echo: bool | None = False
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    suffix: str | None = None


@dataclass(frozen=True, slots=True)
class _Text:
    """One choice: what it repeats of the prompt, its tokens, and how it ends."""

    echo: str
    pieces: tuple[str, ...]
    finish: str


_completion = msgspec.json.Decoder(Completion)
_encode = msgspec.json.encode


def completions(body: bytes, length: int, exaggerate: bool) -> Answer:
    """The answer to a completion request, as `mock_answers.chat`. CallerFault when the body is none."""
    return (_kept if len(body) <= CACHED_BODY else _answer)(body, length, exaggerate)


def _answer(body: bytes, length: int, exaggerate: bool) -> Answer:
    request = read(_completion, body)
    prompts = split("prompt", request.prompt)
    texts = [_text(request, prompt, number, length) for prompt in prompts for number in range(request.n or 1)]
    usage = _usage(request, prompts, texts, EXAGGERATION if exaggerate else 1)
    digest = hashlib.sha256(_encode([request.prompt, request.suffix])).hexdigest()
    head = envelope("text_completion", f"cmpl-{digest[:24]}", request.model)
    if not request.stream:
        choices = [_choice(request, i, text.echo, text.pieces, text.finish) for i, text in enumerate(texts)]
        return Answer(request.model, False, (), _encode(head | {"choices": choices, "usage": usage}))
    chunks = (_encode(chunk) for chunk in _chunks(request, head, texts, usage))
    return Answer(request.model, True, (*map(sse.event, chunks), sse.event(sse.DONE)), b"")


_kept = lru_cache(maxsize=256)(_answer)


def _text(request: Completion, prompt: Prompt, number: int, length: int) -> _Text:
    seed = _encode([prompt, request.suffix, number])
    words = random.Random(seed).choices(WORDS, k=length)  # noqa: S311 - a text, no secret
    pieces = tuple(f" {word}" for word in words)
    limit = len(pieces) if request.max_tokens is None else request.max_tokens
    echo = str(prompt) if request.echo else ""
    return _Text(echo, pieces[:limit], "length" if limit < len(pieces) else "stop")


def _usage(request: Completion, prompts: list[Prompt], texts: list[_Text], factor: int) -> dict[str, int]:
    asked = sum(tokens.count(each, ENCODING) if isinstance(each, str) else len(each) for each in prompts)
    asked += tokens.count(request.suffix or "", ENCODING)
    made = sum(len(text.pieces) for text in texts)
    return {
        "prompt_tokens": asked * factor,
        "completion_tokens": made * factor,
        "total_tokens": (asked + made) * factor,
    }


def _chunks(
    request: Completion, head: dict[str, Any], texts: list[_Text], usage: dict[str, int]
) -> Iterator[dict[str, Any]]:
    wanted = bool((request.stream_options or {}).get("include_usage"))
    rest = {"usage": None} if wanted else {}
    for index, text in enumerate(texts):
        if text.echo:
            yield head | {"choices": [_choice(request, index, text.echo, (), None)]} | rest
        for piece in text.pieces:
            yield head | {"choices": [_choice(request, index, "", (piece,), None)]} | rest
        yield head | {"choices": [_choice(request, index, "", (), text.finish)]} | rest
    if wanted:
        yield head | {"choices": [], "usage": usage}


def _choice(request: Completion, index: int, echo: str, pieces: tuple[str, ...], finish: str | None) -> dict[str, Any]:
    logprobs = None
    if request.logprobs is not None and pieces:
        tops = [{piece: -0.5} for piece in pieces]
        logprobs = {"tokens": list(pieces), "token_logprobs": [-0.5] * len(pieces), "top_logprobs": tops}
    return {"index": index, "text": echo + "".join(pieces), "logprobs": logprobs, "finish_reason": finish}
