"""One stream of a connection: a call one way, an answer the other. It never keeps more than its credit."""

from __future__ import annotations

import asyncio
from copy import copy
from typing import TYPE_CHECKING, Final

from lloom.core.errors import CallerFault, RetryElsewhere
from lloom.core.messages import Call, Cancel, Done, Refusal

if TYPE_CHECKING:
    from lloom.adapters.bridge.connection import Connection

ANSWERED: Final = RetryElsewhere("the request is answered, or the answer has ended", code="answered")
GIVEN_UP: Final = Refusal(499, "cancelled", "the request was cancelled")


class Stream:
    """Use it from one task that sends and one that receives, which may be the same.

    `send` and `receive` wait as long as the connection lives; pings bound that. Who wants less time says `until` when.
    An opener reads to the end or cancels: unread bytes hold credit that the connection's other streams share.
    """

    __slots__ = (
        "_buffer",
        "_ended",
        "_error",
        "_left",
        "_number",
        "_ours",
        "_reader",
        "_sender",
        "call",
        "cancelled",
        "connection",
        "done",
        "received",
        "sent",
    )

    def __init__(self, connection: Connection, number: int, call: Call, *, ours: bool) -> None:
        self.connection = connection
        self.call = call
        self.received = 0
        """Bytes of DATA that arrived, read or not."""
        self.sent = 0
        """Bytes of DATA that were sent."""
        self.done: Done | None = None
        """What came with the peer's END."""
        self.cancelled: Cancel | None = None
        """How far the opener listened before it cancelled."""
        self._number = number
        self._ours = ours
        self._buffer = bytearray()  # not a list: a peer may send its credit in frames of one byte
        self._reader: asyncio.Future[None] | None = None
        self._sender: asyncio.Future[None] | None = None
        self._error: RetryElsewhere | CallerFault | None = None
        self._ended = False
        self._left = False

    async def send(self, data: bytes, until: float | None = None) -> None:
        """Sends `data`, waiting for credit and for a peer that reads slowly. Raises what ended the stream, if something did.

        `until`: on the loop's clock; TimeoutError if it waits then.
        """
        while data:
            self._check()
            room = self.connection.room(self._number)
            if room:
                piece, data = data[:room], data[room:]
                self.connection.session.send(self._number, piece)
                self.sent += len(piece)
                self.connection.flush_soon()
            else:
                self.connection.hold(self)
                self._sender = self.connection.future()
                await _woken(self._sender, until)

    async def finish(self, done: Done = Done()) -> None:  # noqa: B008 - an immutable value
        """Everything was sent. Raises what ended the stream, if something did."""
        self._check()
        self.connection.session.end(self._number, done)
        self._left = True
        if not self._ours:
            self.connection.forget(self._number)
        self.connection.flush()

    async def receive(self, until: float | None = None) -> bytes | None:
        """The bytes that arrived since the last call, at least one; None after the peer's END.

        What ended the stream is raised once all that came before it was read: the error of the peer's RESET, PeerFault, or
        RetryElsewhere if the connection was lost. TimeoutError if nothing has come by `until` (on the loop's clock): what has is
        given later, too.
        """
        while not self._buffer:
            if self._ended:
                return None
            self._check()
            self._reader = self.connection.future()
            await _woken(self._reader, until)
        return self._take()

    @property
    def unread(self) -> bytes:
        """What has arrived and not been received."""
        return bytes(self._buffer)

    def cancel(self) -> None:
        """We, who opened it, want no more: the work at the other end stops. Idempotent; after the end it drops what is unread."""
        if self._error is None and not self._ended:
            self.connection.session.cancel(self._number)
            self._leave(GIVEN_UP)
        self._discard()

    def reset(self, refusal: Refusal) -> None:
        """Ends the stream with an error; if its end was sent already, it only drops what is unread."""
        if not self._left and not self.connection.session.closed:
            self.connection.session.reset(self._number, refusal)
            self._leave(refusal)
        self._discard()

    # What the connection calls

    def arrive(self, data: bytes) -> None:
        """DATA came."""
        self.received += len(data)
        self._buffer += data
        _wake(self._reader)

    def end(self, done: Done) -> None:
        """The peer's END came. If it ends an answer, nobody listens to the rest of our request."""
        self.done = done
        self._ended = True
        _wake(self._reader)
        if self._ours:
            self.fail(ANSWERED)

    def fail(self, error: RetryElsewhere | CallerFault) -> bool:
        """Nothing more comes, and nothing can be sent but an answerer's RESET. Whether that is news."""
        if self._error is not None:
            return False
        self._error = error
        if self._ours:
            self._left = True
            self.connection.forget(self._number)
        _wake(self._reader)
        _wake(self._sender)
        return True

    def wake(self) -> None:
        """It may be possible to send now."""
        _wake(self._sender)

    def _leave(self, refusal: Refusal) -> None:
        self._left = True
        self.fail(refusal.error())
        self.connection.forget(self._number)
        self.connection.flush_soon()

    def _check(self) -> None:
        if self._error is not None:
            raise copy(self._error)

    def _take(self) -> bytes:
        data, self._buffer = bytes(self._buffer), bytearray()
        self.connection.session.consume(self._number, len(data))
        self.connection.flush_soon()
        return data

    def _discard(self) -> None:
        """What nobody will read gives its credit back."""
        if self._buffer:
            self._take()


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


async def _woken(waiting: asyncio.Future[None], until: float | None) -> None:
    if until is None:
        return await waiting
    timer = waiting.get_loop().call_at(until, _give_up, waiting)
    try:
        await waiting
    finally:
        timer.cancel()


def _give_up(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_exception(TimeoutError())
