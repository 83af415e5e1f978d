"""Server-sent events as OpenAI-like APIs stream them. It splits and joins bytes and never looks into the JSON."""

from __future__ import annotations

from typing import Final

from lloom.core.errors import PeerFault

MAX_EVENT: Final = 4 * 1024 * 1024
DONE: Final = b"[DONE]"
END: Final = b"\n\n"
_DATA: Final = b"data: "

_RETURN: Final = ord("\r")
_FEED: Final = ord("\n")
"""Numbers: bytes are found in bytes several times as slowly, since Python asks first whether they are a number."""


class Splitter:
    """Cuts a byte stream into whole events, wherever the network cut it (WHATWG HTML, 9.2.5 Parsing an event stream).

    Each byte is looked at once, however long its event: whoever sends one byte at a time costs no more than others.
    `limit`: bytes of an event; None where the stream is bounded.
    """

    __slots__ = ("_held", "_limit", "_rest")

    def __init__(self, limit: int | None = MAX_EVENT) -> None:
        self._limit = limit
        self._rest = bytearray()
        """What came after the last whole event."""
        self._held = b""
        """A carriage return that may be the first half of a line break."""

    def feed(self, data: bytes) -> list[bytes]:
        """The events that `data` completes, each without its blank line. PeerFault if one grows over the limit."""
        return events(self.block(data))

    def block(self, data: bytes) -> bytes:
        """The same in one piece, each with its blank line; further ones may stand between them, but none before the first."""
        if self._held or _RETURN in data:
            data = self._held + data
            self._held = b"\r" if data.endswith(b"\r") else b""
            data = data.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not self._rest and data.endswith(END):
            return data.lstrip(b"\n")
        unseen = max(0, len(self._rest) - 1)
        self._rest += data
        found = self._rest.rfind(END, unseen)
        end = found + len(END) if found >= 0 else 0
        block = bytes(self._rest[:end])
        del self._rest[:end]
        if self._limit is not None and len(self._rest) > self._limit:
            raise PeerFault("an event without end", code="bad_stream")
        return block.lstrip(b"\n")


def events(block: bytes) -> list[bytes]:
    """The events of a `Splitter.block`, each without its blank line."""
    return [found for event in block.split(END) if (found := event.lstrip(b"\n"))]


def payloads(block: bytes) -> list[bytes]:
    """The `payload` of each event of a `Splitter.block`."""
    found = block[len(_DATA) : -len(END)].split(END + _DATA)
    if block.startswith(_DATA) and block.count(b"\n") == len(END) * len(found):  # each event is one line
        return [data.lstrip(b" ") for data in found]
    return [payload(event) for event in events(block)]


def payload(event: bytes) -> bytes:
    """The joined `data:` lines of an event; empty for comments and other fields."""
    if event.startswith(b"data:") and _FEED not in event:
        return event[5:].lstrip(b" ")
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines)


def event(data: bytes) -> bytes:
    """One event with `data` (which has no line break), its blank line included."""
    return b"data: " + data + END
