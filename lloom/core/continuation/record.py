"""What a caller has seen of an answer: whole, sound events, and what they said. It never changes one.

Every chunk is decoded, only as far as this needs: so nothing malformed reaches a caller, whoever sends it.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct

from lloom.core.api.request import Operation
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.sse import DONE, END, Splitter, events, payload, payloads

MAX_TEXT: Final = 1024 * 1024
"""Bytes of an answer (UTF-8) that are kept: a quarter of a million tokens. A longer one cannot be taken up."""

_MARKS: Final = (DONE, b"null")
"""What says nothing: the end mark, which the gateway sets itself, and llama.cpp's beginning where it has several prompts."""

_NULL: Final = Raw(b"null")
_NO_LIST: Final = (_NULL, Raw(b"[]"))
_NO_OBJECT: Final = (_NULL, Raw(b"{}"))


class Head(Struct, frozen=True):
    """What all chunks of one answer have in common."""

    id: str | None = None
    created: int | float | None = None
    model: str | None = None


class _Delta(Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: Raw = _NULL
    function_call: Raw = _NULL


class _Choice(Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(Struct, gc=False):
    choices: list[_Choice] | None = None
    embedding: Raw = _NULL
    error: Raw = _NULL


_chunk = msgspec.json.Decoder(_Chunk)
_head = msgspec.json.Decoder(Head)


class Record:
    """Fed with all that comes, it gives back what can be passed on, and remembers it. `choices`: as many as were asked for."""

    __slots__ = (
        "_bare",
        "_choices",
        "_ended",
        "_events",
        "_problem",
        "_text",
        "begun",
        "head",
        "plain",
        "reasoned",
        "thinking",
    )

    def __init__(self, choices: int = 1, operation: Operation = "chat") -> None:
        self.head = Head()
        self.begun = False
        """Whether there is content: text, reasoning, a refusal, part of a tool call, or a vector."""
        self.plain = True
        """Whether all of it is one text (after reasoning, perhaps), short enough to be kept."""
        self.reasoned = self.thinking = False
        """Whether it has reasoned at all; whether it does so now."""
        self._bare = operation == "completions"
        self._choices = choices
        self._ended: dict[int, bool] = {}
        """By the index of each choice, whether it has said why it ends."""
        self._events = Splitter()
        self._problem: RetryElsewhere | None = None
        self._text = bytearray()  # not a list: an executor may send one letter at a time

    @property
    def finished(self) -> bool:
        """Whether every choice has said why it ends."""
        return bool(self._ended) and all(self._ended.values())

    @property
    def text(self) -> str:
        """What was said so far, reasoning left out."""
        return self._text.decode()

    @property
    def whole(self) -> bool:
        """Whether `text` is all that the model wrote, as far as it showed."""
        return self.plain and not self.reasoned

    def feed(self, data: bytes) -> bytes:
        """The whole events that `data` completes (maybe none), up to the first one that is not sound: then `check` raises.

        Marks are left out.
        """
        block, sound = b"", 0
        try:
            block = self._events.block(data)
            for chunk in payloads(block):
                if chunk not in _MARKS:
                    if chunk:
                        self._note(chunk)
                    sound += 1
        except RetryElsewhere as error:
            self._problem = error
        # All are sound, of one line, and end in one blank line: who counts what passes, for a key's quota, counts blank lines.
        if block.count(b"\n") == len(END) * sound:
            return block
        passed = [event + END for event in events(block) if payload(event) not in _MARKS]
        return b"".join(passed[:sound])

    def check(self) -> None:
        """PeerFault if what came last was no chunk, RetryElsewhere if it was an error."""
        if self._problem is not None:
            raise self._problem

    def cut(self) -> None:
        """What follows comes from somebody else: what is not whole of the last event is gone."""
        self._events = Splitter()
        self._problem = None

    def _note(self, data: bytes) -> None:
        try:
            chunk = _chunk.decode(data)
            if self.head.id is None:
                self.head = _head.decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise PeerFault("the executor sent a chunk that is none", code="bad_stream") from error
        if chunk.error is not _NULL and chunk.error != _NULL:
            raise RetryElsewhere("the executor failed in the middle of its answer", code="backend_failed")
        choices = chunk.choices or ()
        for choice in choices:
            if not 0 <= choice.index < self._choices:
                raise PeerFault("the executor sent a choice that nobody asked for", code="bad_stream")
        for choice in choices:
            self._add(choice)
        if chunk.embedding not in _NO_LIST:
            self.begun = True

    def _add(self, choice: _Choice) -> None:
        text, delta = choice.text if self._bare else None, choice.delta
        if delta is not None and not self._bare:
            text = delta.content
            if delta.reasoning_content or delta.reasoning:
                self.begun = self.reasoned = self.thinking = True
            if delta.refusal or delta.tool_calls not in _NO_LIST or delta.function_call not in _NO_OBJECT:
                self.begun, self.plain = True, False
        if text:
            self.begun, self.thinking = True, False
            if self.plain:
                self._keep(text)
        if choice.index:
            self.plain = False
        if choice.finish_reason:
            self._ended[choice.index] = True
        else:
            self._ended.setdefault(choice.index, False)

    def _keep(self, text: str) -> None:
        more = text.encode()
        self.plain = len(self._text) + len(more) <= MAX_TEXT
        if self.plain:
            self._text += more
