"""What a bridge session tells its caller, one frozen type per event. It never says what to do about it."""

from __future__ import annotations

from msgspec import Struct

from lloom.core.messages import Call, Cancel, Control, Done, Hello, Refusal, Welcome


class Greeted(Struct, frozen=True):
    """The dialler said HELLO. The caller verifies it, then calls `welcome` or `close`."""

    hello: Hello


class Welcomed(Struct, frozen=True):
    """The acceptor let us in: streams may be opened."""

    welcome: Welcome


class Opened(Struct, frozen=True):
    """The peer opened a stream and waits for an answer."""

    stream: int
    call: Call


class Received(Struct, frozen=True, gc=False):
    """DATA arrived. It counts against the peer's credit until the caller gives it back with `consume`."""

    stream: int
    data: bytes


class Ended(Struct, frozen=True):
    """The peer has said all it had to say."""

    stream: int
    done: Done


class Cancelled(Struct, frozen=True):
    """The opener lost interest. The caller stops the work and then ends or resets the stream."""

    stream: int
    cancel: Cancel


class Broken(Struct, frozen=True):
    """The peer reset the stream. An answerer stops the work and then ends or resets the stream."""

    stream: int
    refusal: Refusal


class Granted(Struct, frozen=True):
    """There is new credit for a stream, or (stream 0) for the whole connection."""

    stream: int


class Told(Struct, frozen=True):
    """A control message arrived."""

    message: Control


class Leaving(Struct, frozen=True):
    """The peer opens and takes no more streams; those that are open go on, unless it was no peer yet."""

    refusal: Refusal


Event = Greeted | Welcomed | Opened | Received | Ended | Cancelled | Broken | Granted | Told | Leaving
