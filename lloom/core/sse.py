"""Server-sent events as OpenAI-like APIs stream them. It splits and joins bytes and never looks into the JSON."""

from __future__ import annotations

from typing import Final

from lloom.core.errors import PeerFault

MAX_EVENT: Final = 4 * 1024 * 1024
DONE: Final = b"[DONE]"
END: Final = b"\n\n"


class Splitter:
    """Cuts a byte stream into whole events, wherever the network cut it (WHATWG HTML, 9.2.5 Parsing an event stream)."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The events that `data` completes, each without its blank line. PeerFault if one grows over MAX_EVENT."""
        whole = self._rest + data if self._rest else data
        if b"\r" in whole:
            held = b"\r" if whole.endswith(b"\r") else b""
            whole = whole.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
        *events, self._rest = whole.split(END)
        if len(self._rest) > MAX_EVENT:
            raise PeerFault("an event without end", code="bad_stream")
        return [event.lstrip(b"\n") for event in events if event.strip(b"\n")]

    @property
    def rest(self) -> bytes:
        """What came after the last whole event."""
        return self._rest


def payload(event: bytes) -> bytes:
    """The joined `data:` lines of an event; empty for comments and other fields."""
    if event.startswith(b"data:") and b"\n" not in event:
        return event[5:].lstrip(b" ")
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines)


def event(data: bytes) -> bytes:
    """One event with `data` (which has no line break), its blank line included."""
    return b"data: " + data + END
