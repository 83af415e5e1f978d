"""The dialect of OpenAI's older completions, which continue a prompt: chunks pass unparsed, or are folded into one answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from lloom.core.api.chunks import Choice, Chunk, Reader, merged, usage
from lloom.core.api.fields import Generation
from lloom.core.api.openai import EventStream, OpenAI
from lloom.core.api.prompts import Prompts, longest, split
from lloom.core.api.reading import contradiction, decode, model_id
from lloom.core.api.request import ApiRequest
from lloom.core.errors import PeerFault
from lloom.core.messages import Done

OBJECT: Final = "text_completion"
MAX_CHOICES: Final = 128
"""Of one answer: for each prompt, `n`."""


class _Body(Generation, kw_only=True):
    """All fields of OpenAI's completions (its OpenAPI description, version 2.3.0). Others pass unseen, as in chats."""

    prompt: Prompts
    best_of: Annotated[int, Meta(ge=1, le=20)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    max_tokens: Annotated[int, Meta(ge=0, lt=1 << 32)] | None = None
    suffix: str | None = None


_decoder = msgspec.json.Decoder(_Body)


class Completions(OpenAI):
    """POST /v1/completions."""

    def read(self, body: bytes, request_id: str) -> CompletionAsked:  # noqa: ARG002 - the backend's ids are the answer's
        """See `Dialect`."""
        return CompletionAsked(parse(body))


@dataclass(frozen=True, slots=True)
class CompletionAsked:
    """A request for completions."""

    request: ApiRequest

    def stream(self) -> EventStream:
        """See `Asked`."""
        return EventStream(OBJECT, self.request.include_usage)

    def whole(self) -> CompletionWhole:
        """See `Asked`."""
        return CompletionWhole()


def parse(body: bytes) -> ApiRequest:
    """The request in `body` (JSON); CallerFault names the field that is wrong."""
    asked = decode(body, _decoder)
    prompts = split("prompt", asked.prompt)
    choices = (asked.n or 1) * len(prompts)
    _check(asked, choices)
    return ApiRequest(
        operation="completions",
        body=body,
        model=model_id(asked.model),
        stream=bool(asked.stream),
        include_usage=asked.include_usage,
        choices=choices,
        max_output=asked.max_tokens,
        text_bytes=longest(prompts),
        features=frozenset() if asked.logprobs is None else frozenset({"logprobs"}),
        prompts=len(prompts),
    )


def _check(asked: _Body, choices: int) -> None:
    """CallerFault for what contradicts itself, field by field right."""
    asked.check_stream()
    if choices > MAX_CHOICES:
        raise contradiction(
            "prompt", f"the prompts times 'n' are {choices} choices, and at most {MAX_CHOICES} are given."
        )
    # Every answer runs as a stream, and who streams cannot take back what was not the best.
    if asked.best_of not in (None, asked.n or 1):
        raise contradiction("best_of", "it can only be as large as 'n' here.")
    if asked.max_tokens == 0 and not asked.echo:
        raise contradiction("max_tokens", "0 is only allowed when 'echo' is true.")


class CompletionWhole:
    """A `text_completion`."""

    __slots__ = ("_head", "_reader", "_texts")

    def __init__(self) -> None:
        self._reader = Reader()
        self._head = Chunk()
        self._texts: dict[int, _Text] = {}

    def feed(self, data: bytes) -> None:
        """See `Whole`."""
        for chunk in self._reader.feed(data):
            if not self._head.id:
                self._head = chunk
            for choice in chunk.choices or ():
                self._texts.setdefault(choice.index, _Text()).add(choice)

    def end(self, done: Done) -> bytes:
        """See `Whole`."""
        if not self._texts or not all(text.finish_reason for text in self._texts.values()):
            raise PeerFault("the answer broke off before its end", code="bad_stream")
        whole = {
            "id": self._head.id or "",
            "object": OBJECT,
            "created": self._head.created or 0,
            "model": self._head.model or "",
            "choices": [self._texts[index].choice(index) for index in sorted(self._texts)],
            "usage": usage(done),
            "system_fingerprint": self._head.system_fingerprint,
        }
        return msgspec.json.encode(whole)


class _Text:
    """One choice as it grows; in pieces until the end, as adding up strings takes quadratic time."""

    __slots__ = ("finish_reason", "logprobs", "pieces")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.logprobs: dict[str, list[Any] | None] | None = None
        self.finish_reason: str | None = None

    def add(self, choice: Choice) -> None:
        self.pieces.append(choice.text or "")
        self.logprobs = merged(self.logprobs, choice.logprobs)
        self.finish_reason = choice.finish_reason or self.finish_reason

    def choice(self, index: int) -> dict[str, Any]:
        text = "".join(self.pieces)
        return {"index": index, "text": text, "logprobs": self.logprobs, "finish_reason": self.finish_reason}
