"""Who may say what, and when, on a bridge connection and on a stream: the state machines as tables. It holds no state itself.

core/bridge/session.py walks them, the same way for what is sent and for what is heard; its docstring gives the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from lloom.core.bridge.frames import Kind


class Side(StrEnum):
    """Who is who on a connection."""

    DIALLER = "dialler"
    ACCEPTOR = "acceptor"

    @property
    def other(self) -> Side:
        """Who is at the other end."""
        return Side.ACCEPTOR if self is Side.DIALLER else Side.DIALLER

    @property
    def first(self) -> int:
        """The number of the first stream that this side opens; it goes on in steps of two."""
        return 1 if self is Side.DIALLER else 2


class Part(StrEnum):
    """Who is who on a stream."""

    OPENER = "opener"
    ANSWERER = "answerer"

    @property
    def other(self) -> Part:
        """Who is at the other end."""
        return Part.ANSWERER if self is Part.OPENER else Part.OPENER


class Phase(StrEnum):
    """How far one side of a connection is."""

    GREETING = "greeting"
    WAITING = "waiting"
    ACTIVE = "active"
    LEAVING = "leaving"
    CLOSED = "closed"


class Half(StrEnum):
    """How far one side of a stream is."""

    IDLE = "idle"
    TALKING = "talking"
    LISTENING = "listening"
    GONE = "gone"


Moves = Mapping[Kind, Phase]
Turns = Mapping[Kind, Half]

_ALWAYS: Final = (Kind.DATA, Kind.END, Kind.CANCEL, Kind.RESET, Kind.WINDOW, Kind.PING, Kind.PONG, Kind.CONTROL)
_ACTIVE: Final[Moves] = {**dict.fromkeys(_ALWAYS, Phase.ACTIVE), Kind.OPEN: Phase.ACTIVE, Kind.GOAWAY: Phase.LEAVING}
_LEAVING: Final[Moves] = {**dict.fromkeys(_ALWAYS, Phase.LEAVING), Kind.GOAWAY: Phase.LEAVING}

# What a side may send in a phase, and the phase that this takes it to.
CONNECTION: Final[Mapping[Side, Mapping[Phase, Moves]]] = {
    Side.DIALLER: {
        Phase.GREETING: {Kind.HELLO: Phase.WAITING, Kind.GOAWAY: Phase.CLOSED},
        Phase.WAITING: {Kind.GOAWAY: Phase.CLOSED},
        Phase.ACTIVE: _ACTIVE,
        Phase.LEAVING: _LEAVING,
        Phase.CLOSED: {},
    },
    Side.ACCEPTOR: {
        Phase.WAITING: {Kind.GOAWAY: Phase.CLOSED},
        Phase.GREETING: {Kind.WELCOME: Phase.ACTIVE, Kind.GOAWAY: Phase.CLOSED},
        Phase.ACTIVE: _ACTIVE,
        Phase.LEAVING: _LEAVING,
        Phase.CLOSED: {},
    },
}

BEGIN: Final = {Side.DIALLER: Phase.GREETING, Side.ACCEPTOR: Phase.WAITING}

# A greeting moves the side that hears it, too.
GREETINGS: Final[Moves] = {Kind.HELLO: Phase.GREETING, Kind.WELCOME: Phase.ACTIVE}

# The same for one stream. A part that is not TALKING has sent its last DATA.
STREAM: Final[Mapping[Part, Mapping[Half, Turns]]] = {
    Part.OPENER: {
        Half.IDLE: {Kind.OPEN: Half.TALKING},
        Half.TALKING: {
            Kind.DATA: Half.TALKING,
            Kind.WINDOW: Half.TALKING,
            Kind.END: Half.LISTENING,
            Kind.CANCEL: Half.GONE,
            Kind.RESET: Half.GONE,
        },
        Half.LISTENING: {Kind.WINDOW: Half.LISTENING, Kind.CANCEL: Half.GONE, Kind.RESET: Half.GONE},
        Half.GONE: {},
    },
    Part.ANSWERER: {
        Half.TALKING: {
            Kind.DATA: Half.TALKING,
            Kind.WINDOW: Half.TALKING,
            Kind.END: Half.GONE,
            Kind.RESET: Half.GONE,
        },
        Half.GONE: {},
    },
}

START: Final = {Part.OPENER: Half.IDLE, Part.ANSWERER: Half.TALKING}

# What the opener may have sent before it heard the answerer's last frame.
LATE: Final = frozenset({Kind.WINDOW, Kind.CANCEL, Kind.RESET})
