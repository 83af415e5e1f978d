"""When a connection is overdue, dead or idle, and when to ping. It never reads a clock and never sends."""

from __future__ import annotations

import math
from enum import Enum
from typing import Final

from lloom.core.settings import BridgeSettings

MISSED_PINGS: Final = 2


class Due(Enum):
    """What is to be done now."""

    NOTHING = "nothing"
    PING = "ping"
    DEAD = "dead"
    OVERDUE = "overdue"
    IDLE = "idle"


class Liveness:
    """The clocks of one connection. All times are seconds on the caller's clock."""

    __slots__ = ("_deadline", "_missed", "_next_ping", "_settings", "_used")

    def __init__(self, settings: BridgeSettings, now: float) -> None:
        self._settings = settings
        self._deadline = now + settings.handshake_seconds
        self._next_ping = self._used = math.inf
        self._missed = 0

    @property
    def wake(self) -> float:
        """When `check` may have something to say; infinity: never."""
        return min(self._deadline, self._next_ping, self._used + self._settings.idle_seconds)

    def start(self, now: float) -> None:
        """The handshake is over: pings begin, and idleness counts."""
        self._deadline = math.inf
        self._next_ping = now + self._settings.ping_seconds
        self._used = now

    def drain(self, now: float) -> None:
        """The connection has `drain_seconds` left, in use or not."""
        self._deadline = min(self._deadline, now + self._settings.drain_seconds)

    def stop(self) -> None:
        """Nothing is ever due again."""
        self._deadline = self._next_ping = self._used = math.inf

    def heard(self, now: float, busy: bool) -> None:
        """Something arrived. Whatever it was, the peer lives; if streams are open (`busy`), the connection is in use."""
        self._missed = 0
        if busy:
            self._used = now

    def check(self, now: float, busy: bool) -> Due:
        """What is due at `now`. A PING counts as missed until something is heard."""
        if busy:
            self._used = now
        if now >= self._deadline:
            return Due.OVERDUE
        if now >= self._used + self._settings.idle_seconds:
            return Due.IDLE
        if now < self._next_ping:
            return Due.NOTHING
        if self._missed == MISSED_PINGS:
            return Due.DEAD
        self._missed += 1
        self._next_ping = now + self._settings.ping_seconds
        return Due.PING
