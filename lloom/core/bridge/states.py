"""Who may say what, and when, on a bridge connection and on a stream: the state machines as tables. It holds no state itself.

core/bridge/session.py walks them, the same way for what is sent and for what is heard; its docstring gives the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from lloom.core.bridge.frames import (
    CANCEL,
    CONTROL,
    DATA,
    END,
    GOAWAY,
    HELLO,
    OPEN,
    PING,
    PONG,
    RESET,
    WELCOME,
    WINDOW,
    Kind,
)


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
        return ANSWERER if self is OPENER else OPENER


OPENER, ANSWERER = Part


class Phase(StrEnum):
    """How far one side of a connection is."""

    GREETING = "greeting"
    WAITING = "waiting"
    ACTIVE = "active"
    LEAVING = "leaving"
    CLOSED = "closed"


GREETING, WAITING, ACTIVE, LEAVING, CLOSED = Phase


class Half(StrEnum):
    """How far one side of a stream is."""

    IDLE = "idle"
    TALKING = "talking"
    LISTENING = "listening"
    GONE = "gone"


IDLE, TALKING, LISTENING, GONE = Half


Moves = Mapping[Kind, Phase]
Turns = Mapping[Kind, Half]

_ALWAYS: Final = (DATA, END, CANCEL, RESET, WINDOW, PING, PONG, CONTROL)
_ACTIVE: Final[Moves] = {**dict.fromkeys(_ALWAYS, ACTIVE), OPEN: ACTIVE, GOAWAY: LEAVING}
_LEAVING: Final[Moves] = {**dict.fromkeys(_ALWAYS, LEAVING), GOAWAY: LEAVING}

# What a side may send in a phase, and the phase that this takes it to.
CONNECTION: Final[Mapping[Side, Mapping[Phase, Moves]]] = {
    Side.DIALLER: {
        GREETING: {HELLO: WAITING, GOAWAY: CLOSED},
        WAITING: {GOAWAY: CLOSED},
        ACTIVE: _ACTIVE,
        LEAVING: _LEAVING,
        CLOSED: {},
    },
    Side.ACCEPTOR: {
        WAITING: {GOAWAY: CLOSED},
        GREETING: {WELCOME: ACTIVE, GOAWAY: CLOSED},
        ACTIVE: _ACTIVE,
        LEAVING: _LEAVING,
        CLOSED: {},
    },
}

BEGIN: Final = {Side.DIALLER: GREETING, Side.ACCEPTOR: WAITING}

# A greeting moves the side that hears it, too.
GREETINGS: Final[Moves] = {HELLO: GREETING, WELCOME: ACTIVE}

# The same for one stream. A part that is not TALKING has sent its last DATA.
STREAM: Final[Mapping[Part, Mapping[Half, Turns]]] = {
    OPENER: {
        IDLE: {OPEN: TALKING},
        TALKING: {DATA: TALKING, WINDOW: TALKING, END: LISTENING, CANCEL: GONE, RESET: GONE},
        LISTENING: {WINDOW: LISTENING, CANCEL: GONE, RESET: GONE},
        GONE: {},
    },
    ANSWERER: {
        TALKING: {DATA: TALKING, WINDOW: TALKING, END: GONE, RESET: GONE},
        GONE: {},
    },
}

START: Final = {OPENER: IDLE, ANSWERER: TALKING}

# What the opener may have sent before it heard the answerer's last frame.
LATE: Final = frozenset({WINDOW, CANCEL, RESET})
