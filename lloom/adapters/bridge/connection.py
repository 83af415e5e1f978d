"""One bridge connection: drives core/bridge/session.py over a wire and hands streams to whoever opens or answers them.

It decides nothing about the protocol; who may connect is decided by its two heirs, in dialler.py and listener.py.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from loguru import logger

from lloom.adapters.bridge.stream import GIVEN_UP, Stream
from lloom.adapters.bridge.wire import Wire
from lloom.core.bridge import events
from lloom.core.bridge.session import CLOSING, Session
from lloom.core.bridge.states import Side
from lloom.core.errors import CallerFault, PeerFault, RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import Call, Control, Hello, Refusal
from lloom.core.settings import BridgeSettings

INTERNAL: Final = Refusal(500, "internal", "the executor failed in a way that it did not expect")
UNANSWERED: Final = Refusal(500, "unanswered", "the executor left the request without an answer")
NO_CALLS: Final = Refusal(501, "no_calls", "this node answers no calls")

FULL_SECONDS: Final = 1.0
"""When to try again where a peer has as many streams open as it takes: that is no fault of it."""

Handler = Callable[[Stream], Coroutine[Any, Any, None]]
OnControl = Callable[["Connection", Control], None]


class Connection:
    """An authenticated peer, and the streams with it. Made by `dial` and `Listener`."""

    def __init__(self, side: Side, settings: BridgeSettings, on_control: OnControl, handler: Handler | None) -> None:
        self._loop = asyncio.get_running_loop()
        self.session: Final = Session(side, settings, self._loop.time())
        self.peer = NodeId(b"")
        """Who is at the other end; empty until that is proved."""
        self.leaving: Final = asyncio.Event()
        """Set once the peer takes no more streams."""
        self.closed: Final = asyncio.Event()
        self.wire: Wire
        """What it runs over; its maker sets it."""
        self._settings: Final = settings
        self._on_control = on_control
        self._handler = handler
        self._streams: dict[int, Stream] = {}
        self._held: dict[Stream, None] = {}
        self._tasks: dict[Stream, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._flush_due = False
        self._farewell: RetryElsewhere | None = None

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self.session.streams

    async def open(self, call: Call) -> Stream:
        """A new stream for `call`. RetryElsewhere if the connection ends or the peer allows no more at once."""
        if self.session.closed or self.session.leaving:
            raise RetryElsewhere(
                f"{checksum(self.peer)} takes no more requests on this connection", status=503, code="closing"
            )
        if not self.session.may_open:
            raise RetryElsewhere(
                f"{checksum(self.peer)} takes no more requests at once",
                status=503,
                code="too_many_streams",
                retry_after=FULL_SECONDS,
            )
        number = self.session.open(call)
        stream = self._streams[number] = Stream(self, number, call, ours=True)
        self.flush_soon()
        return stream

    def send_control(self, message: Control) -> None:
        """Sends `message` ahead of whatever waits for credit; it is lost if the connection has ended."""
        if not self.session.closed:
            self.session.control(message)
            self.flush_soon()

    async def close(self) -> None:
        """Takes no more streams, waits up to `drain_seconds` for the open ones, and returns when it has hung up."""
        self.session.leave(CLOSING, self._loop.time())
        self._set_timer()
        self.flush_soon()
        await self.closed.wait()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=self._settings.drain_seconds)

    # What a stream calls

    def room(self, number: int) -> int:
        """How many bytes may go out on a stream now: none while the peer leaves too many unread, else what it granted."""
        if self.wire.full or self.session.waiting >= self._settings.send_buffer:
            return 0
        return self.session.room(number)

    def future(self) -> asyncio.Future[None]:
        """What a stream waits for."""
        return self._loop.create_future()

    def hold(self, stream: Stream) -> None:
        """Wakes `stream`, in its turn, when there may be room again."""
        self._held[stream] = None

    def forget(self, number: int) -> None:
        """Nothing that happens on this stream matters any more."""
        self._streams.pop(number, None)

    def flush_soon(self) -> None:
        """Writes what there is to say, if anything, once everybody who speaks in this turn of the loop has spoken."""
        if not self._flush_due and (self.session.waiting or self.session.finished):
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def flush(self) -> None:
        """Writes what there is to say now: the peer can begin while others here still speak."""
        if self.session.waiting:
            self.wire.write(self.session.take())
        if self.session.finished:
            self.wire.close()

    # What the wire calls

    def connected(self) -> None:
        """The transport is there: the handshake's time runs."""
        self._set_timer()

    def secured(self) -> None:
        """TLS is up."""

    def resumed(self) -> None:
        """The peer reads again."""
        self._wake_held()

    def received(self, data: bytes) -> None:
        """Plain bytes arrived."""
        try:
            for event in self.session.receive(data, self._loop.time()):
                _ACTS[type(event)](self, event)
        except PeerFault as fault:
            self._fail(fault)
        self.flush_soon()

    def lost(self, error: Exception | None) -> None:
        """The wire is gone."""
        if isinstance(error, PeerFault):
            self._fail(error)
        elif self._farewell is not None:
            self._fail(self._farewell)
        else:
            why = f": {error}" if error else ""
            self._fail(RetryElsewhere(f"the connection to {checksum(self.peer)} was lost{why}", code="connection_lost"))
        if self._timer is not None:
            self._timer.cancel()
        self.closed.set()
        if not self._tasks:
            self._over()

    # What happens then

    def _on_received(self, event: events.Received) -> None:
        self._streams[event.stream].arrive(event.data)

    def _on_granted(self, event: events.Granted) -> None:
        if event.stream:
            self._streams[event.stream].wake()
        else:
            self._wake_held()

    def _on_opened(self, event: events.Opened) -> None:
        self._answer(Stream(self, event.stream, event.call, ours=False), event.stream)

    def _on_ended(self, event: events.Ended) -> None:
        self._streams[event.stream].end(event.done)

    def _on_cancelled(self, event: events.Cancelled) -> None:
        stream = self._streams[event.stream]
        stream.cancelled = event.cancel
        self._break(stream, GIVEN_UP.error())

    def _on_broken(self, event: events.Broken) -> None:
        self._break(self._streams[event.stream], event.refusal.error())

    def _on_told(self, event: events.Told) -> None:
        self._on_control(self, event.message)

    def _on_leaving(self, event: events.Leaving) -> None:
        # Never the caller's fault, whatever the peer says: it is about no request.
        refusal = event.refusal
        self._farewell = RetryElsewhere(refusal.message, status=refusal.status, code=refusal.code)
        self.leaving.set()

    def _on_greeted(self, event: events.Greeted) -> None:
        self._greeted(event.hello)
        self._set_timer()

    def _on_welcomed(self, _event: events.Welcomed) -> None:
        self._welcomed()
        self._set_timer()

    def _greeted(self, said: Hello) -> None:
        """A dialler says who it is; PeerFault if it lies."""

    def _welcomed(self) -> None:
        """We are let in."""

    def _answer(self, stream: Stream, number: int) -> None:
        self._streams[number] = stream
        if self._handler is None:
            stream.reset(NO_CALLS)
            return
        task = self._tasks[stream] = self._loop.create_task(self._handler(stream))
        task.add_done_callback(lambda done: self._settle(stream, done))

    def _settle(self, stream: Stream, task: asyncio.Task[None]) -> None:
        """The work on a stream has really stopped: its end goes out, if it has not."""
        del self._tasks[stream]
        if self.closed.is_set() and not self._tasks:
            self._over()
        error = None if task.cancelled() else task.exception()
        if error is None:
            stream.reset(GIVEN_UP if stream.cancelled else UNANSWERED)
        elif isinstance(error, RetryElsewhere | CallerFault):
            stream.reset(Refusal.of(error))
        else:
            logger.opt(exception=error).error("answering a call of {} failed", checksum(self.peer))
            stream.reset(INTERNAL)

    def _break(self, stream: Stream, error: RetryElsewhere | CallerFault) -> None:
        """The stream is of no use any more; who works on it hears of it once."""
        if stream.fail(error) and stream in self._tasks:
            self._tasks[stream].cancel()

    def _fail(self, error: RetryElsewhere | CallerFault) -> None:
        """The connection is of no use any more."""
        self.session.close(Refusal.of(error))
        for stream in tuple(self._streams.values()):
            self._break(stream, error)
        self._streams.clear()
        self.flush_soon()

    def _over(self) -> None:
        """The wire is gone, and all work for it has stopped."""

    def _wake_held(self) -> None:
        held, self._held = self._held, {}
        for stream in held:
            stream.wake()

    def _flush(self) -> None:
        self._flush_due = False
        self.flush()
        if self._held and not self.wire.full:
            self._wake_held()

    def _tick(self) -> None:
        ended = self.session.tick(self._loop.time())
        if ended is not None:
            self._fail(ended.error())
        self.flush_soon()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.session.wake < math.inf and not self.session.finished:
            self._timer = self._loop.call_at(self.session.wake, self._tick)


# By type: to match classes one by one takes longer than all that most events bring about.
_ACTS: Final[Mapping[type[events.Event], Callable[[Connection, Any], None]]] = {
    events.Received: Connection._on_received,
    events.Granted: Connection._on_granted,
    events.Opened: Connection._on_opened,
    events.Ended: Connection._on_ended,
    events.Cancelled: Connection._on_cancelled,
    events.Broken: Connection._on_broken,
    events.Told: Connection._on_told,
    events.Leaving: Connection._on_leaving,
    events.Greeted: Connection._on_greeted,
    events.Welcomed: Connection._on_welcomed,
}
