"""An answer in blocks: runs of text, of thoughts, a refusal, tool calls, as dialects beside OpenAI's chat tell them.

It reads the network's chunks, however their bytes are cut, and trusts nothing in them. Of several choices it reads the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from lloom.core.api.calls import CalledFunction, CallPiece
from lloom.core.api.chunks import MAX_ANSWER
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.sse import DONE, Splitter, payloads

Kind = Literal["text", "thought", "refusal", "call"]

MAX_BLOCKS: Final = 4096


@dataclass(slots=True)
class Block:
    """A part of an answer. `id` and `name` are a call's; its `text` are the arguments (JSON, if the model keeps to it)."""

    kind: Kind
    number: int
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Begun:
    """A block begins; the one before is over."""

    block: Block


@dataclass(frozen=True, slots=True)
class Grown:
    """More of the block that began last; `text` is never empty."""

    block: Block
    text: str


@dataclass(frozen=True, slots=True)
class Over:
    """A block is whole."""

    block: Block


Event = Begun | Grown | Over


class _Delta(Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """Another name of the same: some backends send both."""
    refusal: str | None = None
    tool_calls: list[CallPiece] | None = None
    function_call: CalledFunction | None = None


class _Choice(Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    """vLLM: the string that ended the answer, if one did."""


class _Chunk(Struct):
    created: int | float | None = None
    model: str | None = None
    choices: list[_Choice] | None = None
    error: msgspec.Raw = msgspec.Raw(b"null")


_decoder = msgspec.json.Decoder(_Chunk)


class Reading:
    """Reads one answer. `blocks` are all that began; `finish` is OpenAI's finish_reason, None until it came."""

    __slots__ = ("_bytes", "_calls", "_open", "_splitter", "blocks", "created", "finish", "model", "stopped_by")

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.model: str | None = None
        self.created: int | None = None
        """Unix seconds, by the backend's clock."""
        self.finish: str | None = None
        self.stopped_by: str | None = None
        """The stop sequence that ended it, where the backend says so."""
        self._splitter = Splitter()
        self._bytes = 0
        self._open: Block | None = None
        self._calls: dict[int, Block] = {}

    def feed(self, data: bytes) -> list[Event]:
        """What the next bytes amount to. PeerFault if they are no chunks, RetryElsewhere for an error in-band."""
        self._bytes += len(data)
        if self._bytes > MAX_ANSWER:
            raise PeerFault("an answer without end", code="bad_stream")
        events: list[Event] = []
        for chunk in payloads(self._splitter.block(data)):
            if chunk and chunk != DONE:
                self._take(_decode(chunk), events)
        return events

    def end(self) -> list[Event]:
        """What is left to be told of an answer that came to its end. PeerFault if it did not: it was cut."""
        if self.finish is None:
            raise PeerFault("the answer broke off before its end", code="bad_stream")
        events: list[Event] = []
        self._close(events)
        return events

    @property
    def called(self) -> bool:
        """Whether the model calls tools."""
        return any(block.kind == "call" for block in self.blocks)

    def _take(self, chunk: _Chunk, events: list[Event]) -> None:
        self.model = self.model or chunk.model
        if self.created is None and chunk.created is not None:
            self.created = int(chunk.created)
        for choice in chunk.choices or ():
            if choice.index == 0:
                if choice.delta is not None:
                    self._grow(choice.delta, events)
                self.finish = choice.finish_reason or self.finish
                if isinstance(choice.stop_reason, str):
                    self.stopped_by = choice.stop_reason

    def _grow(self, delta: _Delta, events: list[Event]) -> None:
        self._say("thought", delta.reasoning_content or delta.reasoning, events)
        self._say("text", delta.content, events)
        self._say("refusal", delta.refusal, events)
        for position, call in enumerate(delta.tool_calls or ()):
            self._call(call, call.place(position), events)
        if delta.function_call is not None:
            self._call(CallPiece(function=delta.function_call), 0, events)

    def _say(self, kind: Kind, text: str | None, events: list[Event]) -> None:
        if not text:
            return
        block = self._open
        if block is None or block.kind != kind:
            block = self._begin(Block(kind, len(self.blocks)), events)
        self._add(block, text, events)

    def _call(self, call: CallPiece, index: int, events: list[Event]) -> None:
        function = call.function or CalledFunction()
        block = self._calls.get(index)
        if block is None or call.begins_another(block.id):
            if not function.name:
                raise PeerFault("the executor sent a tool call without a name", code="bad_stream")
            block = Block("call", len(self.blocks), call.id or "", function.name)
            self._calls[index] = self._begin(block, events)
        if function.arguments:
            if block is not self._open:
                raise PeerFault("the executor mixes its tool calls", code="bad_stream")
            self._add(block, function.arguments, events)

    def _begin(self, block: Block, events: list[Event]) -> Block:
        if len(self.blocks) >= MAX_BLOCKS:
            raise PeerFault("an answer of too many parts", code="bad_stream")
        self._close(events)
        self.blocks.append(block)
        self._open = block
        events.append(Begun(block))
        return block

    def _add(self, block: Block, text: str, events: list[Event]) -> None:
        block.pieces.append(text)
        events.append(Grown(block, text))

    def _close(self, events: list[Event]) -> None:
        if self._open is not None:
            events.append(Over(self._open))
            self._open = None


def _decode(data: bytes) -> _Chunk:
    try:
        chunk = _decoder.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise PeerFault("the executor sent a chunk that is none", code="bad_stream") from error
    if bytes(chunk.error) != b"null":
        raise RetryElsewhere("the executor failed in the middle of its answer")
    return chunk
