"""What an answer amounts to: takes usage and end marks out of a backend's events, and the text that counts out of their chunks.

`Meter.feed`, which all answers go through, parses no content chunk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
from msgspec import Struct

from lloom.core.api.calls import CalledFunction
from lloom.core.api.request import Operation
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.messages import Tokens
from lloom.core.sse import DONE, END, Splitter, payload, payloads

MAX_USAGE: Final = 4096
"""Bytes, as `messages.Done` takes."""

KEPT_BYTES: Final = 8 * 1024 * 1024
"""Bytes kept for counting when a backend reports no usage, or not all of an answer arrives; beyond it, four count as a token."""

# Within a JSON string a quote is escaped, so an answer's text cannot contain these, but for [DONE]: hence the second look.
# One pattern each: a search that begins with fixed bytes runs twice as fast as one with alternatives.
_NOTABLE: Final = tuple(map(re.compile, (rb'"usage"\s*:\s*\{', rb"\[DONE\]", rb'"error"\s*:\s*[{"]')))


_MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises when a backend sends nonsense."""

_NULL: Final = msgspec.Raw(b"null")


class _Custom(Struct, frozen=True):
    input: str | None = None


class _Call(Struct, frozen=True):
    """A piece of a call: of a function, or of a custom tool (OpenAI), which takes a text instead of arguments."""

    id: str | None = None
    function: CalledFunction | None = None
    custom: _Custom | None = None


class _Usage(Struct, frozen=True):
    prompt_tokens: Tokens = 0
    completion_tokens: Tokens = 0
    total_tokens: int = 0


class _Chunk(Struct, frozen=True):
    choices: list[msgspec.Raw] = []
    usage: msgspec.Raw = _NULL
    error: msgspec.Raw = _NULL


class _ErrorText(Struct, frozen=True):
    message: str = ""


class _Audio(Struct, frozen=True):
    transcript: str | None = None


class _Delta(Struct, frozen=True):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """Another name of the same: some backends send both."""
    reasoning_details: msgspec.Raw = _NULL
    """The same once more, or what stands for it (OpenRouter)."""
    audio: _Audio | None = None
    refusal: str | None = None
    tool_calls: msgspec.Raw = _NULL
    function_call: msgspec.Raw = _NULL


class _End(Struct, frozen=True):
    finish_reason: str | None = None


class _Ends(Struct, frozen=True):
    choices: list[_End] = []


class _ChatChoice(Struct, frozen=True):
    delta: _Delta | None = None


class _ChatContent(Struct, frozen=True):
    choices: list[_ChatChoice] | None = None


class _CompletionChoice(Struct, frozen=True):
    text: str | None = None


class _CompletionContent(Struct, frozen=True):
    choices: list[_CompletionChoice] | None = None


_chunk = msgspec.json.Decoder(_Chunk)
_usage = msgspec.json.Decoder(_Usage)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_calls = msgspec.json.Decoder(_Call)
_functions = msgspec.json.Decoder(CalledFunction)
_ends = msgspec.json.Decoder(_Ends)
_chat_content = msgspec.json.Decoder(_ChatContent)
_completion_content = msgspec.json.Decoder(_CompletionContent)


class Kept:
    """The content events of one answer, as many as there is room for, so that somebody can count what they say."""

    __slots__ = ("_bytes", "_operation")

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self._bytes = bytearray()

    @property
    def full(self) -> bool:
        """Whether nothing more is kept. Of vectors nothing is: their tokens are all in the prompt."""
        return self._operation == "embeddings" or len(self._bytes) >= KEPT_BYTES

    def add(self, data: bytes) -> None:
        """The next bytes of the answer."""
        if not self.full:
            self._bytes += data

    def since(self, start: int) -> bytes:
        """What is kept after the first `start` bytes."""
        return bytes(self._bytes[start:])

    def clear(self) -> None:
        """Keeps nothing of it any longer."""
        self._bytes.clear()

    def text(self, length: int) -> str:
        """What the model wrote in the first `length` bytes; tool calls included."""
        return text(self._operation, payloads(Splitter(limit=None).block(bytes(self._bytes[:length]))))

    def says(self, length: int) -> bool:
        """Whether anything of an answer is in the first `length` bytes: a word, or a vector."""
        if self._operation == "embeddings":
            return length > 0
        return any(map(_WORDS[self._operation], map(payload, self._events(length))))

    def ends(self) -> bool:
        """Whether a choice is said to be over."""
        return any(map(_finishes, self._events(len(self._bytes))))

    def _events(self, length: int) -> Iterator[bytes]:
        """Those that end in the first `length` bytes; most of what is looked for stands in the first few of them."""
        start = 0
        while (end := self._bytes.find(END, start, length)) >= 0:
            yield bytes(self._bytes[start:end])
            start = end + len(END)

    def unkept(self, length: int) -> int:
        """How many of the first `length` bytes `text` leaves out because there were too many."""
        return 0 if self._operation == "embeddings" else max(0, length - len(self._bytes))


class Meter:
    """Passes the content events of one answer on and keeps what is to be billed.

    `usage`: OpenAI's usage object as JSON, exactly as the backend gave it; empty if it gave none.
    """

    __slots__ = ("_kept", "_reported", "_splitter", "ended", "usage")

    def __init__(self, operation: Operation) -> None:
        self.usage = b""
        self.ended = False
        """Whether the backend said `[DONE]`, or sent its usage: else the stream was cut."""
        self._splitter = Splitter()
        self._kept = Kept(operation)
        self._reported = _Usage()

    def feed(self, data: bytes) -> bytes:
        """The whole content events that `data` completes, ready to be sent on (may be empty).

        RetryElsewhere if the backend reports an error in-band, PeerFault if an event is no JSON where it must be looked into.
        """
        block = self._splitter.block(data)
        notable = [found.start() for pattern in _NOTABLE if (found := pattern.search(block))]
        if notable:  # most likely in the last events only
            cut = block.rfind(END, 0, min(notable))
            start = cut + len(END) if cut >= 0 else 0
            rest = block[start:].removesuffix(END).split(END)
            block = block[:start] + b"".join([kept + END for event in rest if (kept := self._look(event))])
        self._kept.add(block)
        return block

    def tokens(self) -> tuple[int, int]:
        """Input and output tokens as the backend reported them; (0, 0) if it did not."""
        return self._reported.prompt_tokens, self._reported.completion_tokens

    def text(self, length: int) -> str:
        """What the model wrote in the first `length` bytes passed on, tool calls included, for a count of our own."""
        return self._kept.text(length)

    def says(self, length: int) -> bool:
        """Whether anything of an answer is in the first `length` bytes passed on: a word, or a vector."""
        return self._kept.says(length)

    def ends(self) -> bool:
        """Whether one of the choices was said to be over."""
        return self._kept.ends()

    def unkept(self, length: int) -> int:
        """How many of the first `length` bytes `text` leaves out because there were too many."""
        return self._kept.unkept(length)

    def _look(self, event: bytes) -> bytes:
        """What is passed on of an event that may carry usage, an error or the end."""
        data = payload(event)
        if data == DONE:
            self.ended = True
            return b""
        if not data:
            return event
        try:
            chunk = _chunk.decode(data)
        except _MALFORMED as error:
            raise PeerFault("the backend sent a chunk that is no JSON", code="bad_stream") from error
        if chunk.error != _NULL:
            raise RetryElsewhere("the backend failed in the middle of its answer", code="backend_failed")
        if chunk.usage == _NULL:
            return event
        self._take_usage(bytes(chunk.usage))
        return event if chunk.choices else b""

    def _take_usage(self, usage: bytes) -> None:
        try:
            self._reported = _usage.decode(usage)
        except _MALFORMED as error:
            raise PeerFault("the backend reports a usage that is none", code="bad_usage") from error
        # A backend's details are passed on, unless there are more than a message takes.
        self.usage = usage if len(usage) <= MAX_USAGE else msgspec.json.encode(self._reported)
        self.ended = True


def text(operation: Operation, chunks: Iterable[bytes]) -> str:
    """What the model wrote in `chunks` (`sse.payloads`), tool calls included; what is no content counts for nothing."""
    return "".join(map(_WORDS[operation], chunks))


def _finishes(event: bytes) -> bool:
    try:
        return any(choice.finish_reason for choice in _ends.decode(payload(event)).choices)
    except _MALFORMED:
        return False


def _chat_words(data: bytes) -> str:
    try:
        choices = _chat_content.decode(data).choices or ()
    except _MALFORMED:
        return _unread(data)
    return "".join([_delta_words(choice.delta) for choice in choices if choice.delta])


def _delta_words(delta: _Delta) -> str:
    words = (delta.content or "") + (delta.reasoning_content or delta.reasoning or "") + (delta.refusal or "")
    if delta.audio is not None:
        words += delta.audio.transcript or ""
    if not words and delta.reasoning_details != _NULL:
        words = _verbatim(delta.reasoning_details)
    if delta.tool_calls != _NULL:
        words += _called(delta.tool_calls)
    if delta.function_call != _NULL:
        words += _function_words(delta.function_call)
    return words


def _called(calls: msgspec.Raw) -> str:
    try:
        return "".join(map(_call_words, _raws.decode(calls)))
    except _MALFORMED:
        return _verbatim(calls)


def _call_words(piece: msgspec.Raw) -> str:
    """Of the piece that begins a call all its JSON, for backends bill a frame around each; of those that follow what they add."""
    try:
        call = _calls.decode(piece)
    except _MALFORMED:
        return _verbatim(piece)
    function, custom = call.function or CalledFunction(), call.custom or _Custom()
    return _verbatim(piece) if call.id or function.name else (function.arguments or "") + (custom.input or "")


def _function_words(piece: msgspec.Raw) -> str:
    """The same of the older form of a call."""
    try:
        function = _functions.decode(piece)
    except _MALFORMED:
        return _verbatim(piece)
    return _verbatim(piece) if function.name else function.arguments or ""


def _verbatim(json: bytes) -> str:
    return bytes(json).decode(errors="replace")


def _completion_words(data: bytes) -> str:
    try:
        choices = _completion_content.decode(data).choices or ()
    except _MALFORMED:
        return _unread(data)
    return "".join([choice.text for choice in choices if choice.text])


def _unread(data: bytes) -> str:
    """What counts of an event that is no chunk: of an object all of it, since a client that is not ours may read it."""
    return _verbatim(data) if data.startswith(b"{") else ""


_WORDS: Final[dict[Operation, Callable[[bytes], str]]] = {
    "chat": _chat_words,
    "completions": _completion_words,
    "embeddings": lambda _data: "",
}
