"""Frames of the bridge: bytes ⇄ (kind, stream, payload). It never looks into a payload.

u32 length of the payload | u8 kind | u32 stream | payload          (big-endian, 9 bytes of header as in RFC 9113, section 4.1)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from msgspec import Struct

from lloom.core.errors import PeerFault

HEADER: Final = struct.Struct("!IBI")

MAX_DATA: Final = 64 * 1024
"""Largest payload of DATA; longer data goes in several frames, so that streams take turns."""

MAX_STREAM: Final = (1 << 32) - 1


class Kind(IntEnum):
    """What a frame is. The number is its byte on the wire."""

    HELLO = 1
    WELCOME = 2
    OPEN = 3
    DATA = 4
    END = 5
    CANCEL = 6
    RESET = 7
    WINDOW = 8
    PING = 9
    PONG = 10
    GOAWAY = 11
    CONTROL = 12


# In Python 3.11 `Kind.DATA` takes longer than all else that is done with it.
HELLO, WELCOME, OPEN, DATA, END, CANCEL, RESET, WINDOW, PING, PONG, GOAWAY, CONTROL = Kind

_KINDS: Final = {int(kind): kind for kind in Kind}


class Frame(Struct, frozen=True, gc=False):
    """One frame. Stream 0 is the connection itself."""

    kind: Kind
    stream: int
    payload: bytes


def violation(message: str) -> PeerFault:
    """What to raise when the peer broke the bridge's protocol."""
    return PeerFault(f"the peer broke the protocol: {message}", code="protocol")


def encode(frame: Frame) -> bytes:
    """`frame` as bytes."""
    return HEADER.pack(len(frame.payload), frame.kind, frame.stream) + frame.payload


class Decoder:
    """Bytes in, whole frames out, wherever the network cut them. Holds at most one unfinished frame."""

    __slots__ = ("_held", "_need", "limit")

    def __init__(self, limit: int) -> None:
        """`limit`: largest payload, in bytes, of any frame but DATA."""
        self.limit = limit
        self._held = bytearray()
        self._need = HEADER.size

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes. PeerFault, once the frames before it are out, at one that is too long or of no kind.

        A length is judged as soon as its header is there, before any of the payload is held. Iterate to the end.
        """
        if self._held:
            self._held += data
            if len(self._held) < self._need:  # not joined before it is whole: a trickle costs no quadratic copying
                return
            data, self._held = bytes(self._held), bytearray()
        start, size = 0, len(data)
        while (body := start + HEADER.size) <= size:
            length, byte, stream = HEADER.unpack_from(data, start)
            kind = _KINDS.get(byte)
            if kind is None or length > (MAX_DATA if kind is DATA else self.limit):
                raise _refusal(kind, byte, length)
            if (end := body + length) > size:
                self._need = HEADER.size + length
                break
            yield Frame(kind, stream, data[body:end])
            start = end
        else:
            self._need = HEADER.size
        if start < size:
            self._held += data[start:]


def _refusal(kind: Kind | None, byte: int, length: int) -> PeerFault:
    if kind is None:
        return violation(f"a frame of unknown kind {byte}")
    return violation(f"a {kind.name} of {length} bytes is too long")
