"""Where one answer goes: to its client's stream, and to another one of the same client where that broke. It bills nothing."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

from msgspec import Struct

from lloom.adapters.bridge import Connection, Stream
from lloom.adapters.serving.tab import Tab
from lloom.core.billing.receipt import Draft
from lloom.core.bridge.frames import MAX_DATA
from lloom.core.copies import Copies, Copy
from lloom.core.errors import CallerFault, RetryElsewhere
from lloom.core.messages import Cancel, Done


class Whole(Struct, frozen=True):
    """What there is of an answer that is over, beside its bytes."""

    done: Done
    draft: Draft
    bill: Callable[[Connection, Draft], None]
    """Has its receipt sent again; the same draft costs nothing twice."""


class Outlet:
    """Who answers calls `send` and `finish`: both wait while the client is away, if it may come back. Who takes calls `moved`."""

    def __init__(self, stream: Stream, copy: Copy | None = None, copies: Copies[Whole] | None = None) -> None:
        """`copy`: what is kept of the answer in `copies`; None: nothing, so it ends with its stream."""
        self.copy = copy
        self.begun = False
        """Whether the backend works on it: before that, nobody loses anything if it ends."""
        self.tab: Tab | None = None
        """Who is told what it needs."""
        self.draft: Draft | None = None
        """What is billed for it."""
        self.done: Done | None = None
        self._stream = stream
        self._copies = copies
        self._moved = False
        self._heard: asyncio.Event | None = None
        """Set once the next stream has all that was said; None while this one has."""

    @property
    def connection(self) -> Connection:
        """Where its client is, or was."""
        return self._stream.connection

    @property
    def cancelled(self) -> Cancel | None:
        """How far its client listened before it cancelled."""
        return self._stream.cancelled

    @property
    def lost(self) -> bool:
        """Whether the client is gone without a word, and can have all that was said once it is back."""
        session = self.connection.session
        gone = session.closed and not session.left and self.cancelled is None
        return gone and self.begun and self.copy is not None and self.copy.complete

    async def send(self, data: bytes) -> None:
        """As `Stream.send`."""
        if self.copy is not None and self._copies is not None:
            self._copies.add(self.copy, data)
        if self._heard is None:
            try:
                await self._stream.send(data)
            except (RetryElsewhere, CallerFault):
                await self._broken()
        if self._heard is not None:
            await self._back(self._heard)  # whoever moves it sends this as well

    async def finish(self, done: Done) -> None:
        """As `Stream.finish`."""
        self.done = done
        while True:
            if self._heard is not None:
                await self._back(self._heard)
            try:
                return await self._stream.finish(done)
            except (RetryElsewhere, CallerFault):
                await self._broken()

    async def _broken(self) -> None:
        """The stream is of no use any more. Unless its client may come back, the work is about to be cancelled: who waits for a
        stream hears of its end first.
        """
        if not self.lost:
            await asyncio.Event().wait()
        self.leave()

    async def _back(self, heard: asyncio.Event) -> None:
        """Returns once the client is back and has heard all."""
        if self.copy is None or not self.copy.complete:
            raise _lost()
        await heard.wait()

    def leave(self) -> None:
        """Its stream is of no use any more."""
        self._heard = self._heard or asyncio.Event()

    async def move(self, stream: Stream) -> None:
        """Says all again on another stream of its client, and goes on there."""
        assert self.copy is not None
        self._stream, self._moved = stream, True
        if self.tab is not None:
            self.tab.connection = stream.connection
        await say(stream, self.copy)
        if self._heard is not None:
            self._heard.set()
            self._heard = None

    def digest(self, salt: bytes, length: int) -> bytes | None:
        """The hash of the answer's first `length` bytes, as its client may have no more of them once it moved; else None."""
        if not self._moved or self.copy is None or not self.copy.complete or length > len(self.copy.data):
            return None
        return hashlib.sha256(salt + self.copy.data[:length]).digest()


async def say(stream: Stream, copy: Copy) -> None:
    """All of an answer, and what is added to it meanwhile. RetryElsewhere if it is not kept any more."""
    sent = 0
    while sent < len(copy.data):
        piece = bytes(copy.data[sent : sent + MAX_DATA])
        await stream.send(piece)
        sent += len(piece)
        if not copy.complete:
            raise _lost()


def _lost() -> RetryElsewhere:
    return RetryElsewhere("The connection broke, and too much was said to say it again.", code="connection_lost")
