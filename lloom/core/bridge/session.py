"""One bridge connection as a state machine: bytes in, events and bytes out. It never does I/O, waits, or reads a clock.

Rules (core/bridge/states.py has them as tables; every frame, in or out, walks the same ones)

 1. The dialler greets with HELLO; once that is verified the acceptor answers WELCOME; only then may anything else be said. Both
    carry limits (streams, windows, control bytes), and each side keeps within the limits of the other.
 2. Both sides open streams: the dialler 1, 3, 5 …, the acceptor 2, 4, 6 …, none left out. Stream 0 is the connection itself.
 3. On a stream each side talks until its *last frame*: the opener's is END (after which it may still CANCEL or RESET), CANCEL or
    RESET; the answerer's is END or RESET. A stream is closed, and its place free, when both have sent theirs. Hence
    - an answerer that was cancelled sends its last frame when its work has really stopped: opening and cancelling in a hurry
      keeps nobody busy beyond the limit on streams (HTTP/2 lacks this: CVE-2023-44487);
    - an opener that is answered before it has ended cancels: nobody listens to the rest;
    - a side that has sent its last frame and wants no more drops the DATA still on its way, and its credit goes back at once.
 4. On a closed stream the opener's WINDOW, CANCEL and RESET may have crossed the answerer's last frame and are ignored. Every
    other frame on a stream that is not open is a violation.
 5. DATA, and nothing else, needs credit: the stream's and the connection's. Credit never exceeds the window that was announced.
    CONTROL is bounded by its size only, so that no stalled stream holds up a payment.
 6. GOAWAY: its sender opens no more streams and refuses those still coming in; the connection ends with the last open stream.
 7. Frames with less than SMALL bytes come at a bounded rate: one-byte DATA would cost the receiver more than its sender.
 8. A violation by the peer raises PeerFault, and the connection is closed with a GOAWAY that says why. A violation by the caller
    raises LocalProtocolError and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from lloom.core.bridge import events
from lloom.core.bridge.credit import Credit, SharedWindow
from lloom.core.bridge.events import Event
from lloom.core.bridge.frames import (
    CANCEL,
    CONTROL,
    DATA,
    END,
    GOAWAY,
    HEADER,
    HELLO,
    MAX_DATA,
    OPEN,
    PING,
    PONG,
    RESET,
    WELCOME,
    WINDOW,
    Decoder,
    Frame,
    Kind,
    violation,
)
from lloom.core.bridge.liveness import Due, Liveness
from lloom.core.bridge.states import ACTIVE, BEGIN, CLOSED, CONNECTION, GONE, GREETINGS, LEAVING, OPENER, Phase, Side
from lloom.core.bridge.streams import Streams, StreamState
from lloom.core.buckets import Bucket
from lloom.core.errors import LocalProtocolError, PeerFault
from lloom.core.messages import (
    MIN_CONTROL,
    VERSION,
    Call,
    Cancel,
    Control,
    Done,
    Hello,
    Limits,
    Message,
    Refusal,
    Welcome,
    decode,
    decoder,
    encode,
)
from lloom.core.settings import BridgeSettings

CLOSING: Final = Refusal(503, "closing", "the node takes no more requests on this connection")
IDLE: Final = Refusal(503, "idle", "the connection was not used for a while")
SLOW_HANDSHAKE: Final = Refusal(408, "slow_handshake", "the handshake took too long")
SLOW_DRAIN: Final = Refusal(503, "slow_drain", "the node is stopping and could wait no longer")
DEAD: Final = Refusal(504, "dead", "nothing came for so long that two pings went unanswered")

SMALL: Final = 64
"""Bytes. Every chunk of an answer is larger; control frames are not, but few."""

_NOTHING: Final = Limits(0, 0, 0, MIN_CONTROL)
"""What a peer takes that has not told its limits."""

_hello = decoder(Hello)
_welcome = decoder(Welcome)
_call: Any = decoder(Call)  # type: ignore[arg-type]
_done = decoder(Done)
_cancel = decoder(Cancel)
_refusal = decoder(Refusal)
_control: Any = decoder(Control)  # type: ignore[arg-type]


class Session:
    """One side of a connection.

    The caller feeds what arrives to `receive` and acts on the events, calls `tick` at `wake`, writes what `take` gives whenever
    something is `waiting`, and hangs up, after a last `take`, once the session is `finished`. Times are seconds on any clock that
    never goes back. Every method but `receive` raises LocalProtocolError where the rules forbid it.
    """

    def __init__(self, side: Side, settings: BridgeSettings, now: float) -> None:
        windows = settings.stream_window, settings.connection_window
        self.limits: Final = Limits(settings.streams, *windows, settings.control_bytes)
        self.waiting = 0
        """Bytes that `take` will give."""
        self.left = False
        """Whether we said GOAWAY before the end."""
        self._side, self._peer = side, side.other
        self._move(BEGIN[side], BEGIN[side.other])
        self._decoder = Decoder(MIN_CONTROL)
        self._out: list[bytes] = []
        self._window = SharedWindow(settings.connection_window)
        self._liveness = Liveness(settings, now)
        self._small = Bucket(settings.small_frames_per_second, now)
        self._now = now
        self._unanswered = 0
        self._meet(_NOTHING)

    @property
    def finished(self) -> bool:
        """Whether it is time to hang up: it is closed, or somebody leaves and no stream is open."""
        return self.closed or (self.leaving and not self._streams)

    @property
    def streams(self) -> int:
        """How many streams are open, whoever opened them."""
        return len(self._streams)

    @property
    def may_open(self) -> bool:
        """Whether `open` is possible: nobody leaves, and the peer has a place free."""
        return self._active and self._streams.free

    @property
    def wake(self) -> float:
        """When `tick` may have something to do; infinity: never."""
        return self._liveness.wake

    # What we say

    def hello(self, hello: Hello) -> None:
        """Greets the acceptor."""
        self._say(HELLO, encode(hello))

    def welcome(self) -> None:
        """Lets the dialler in: its HELLO was verified."""
        self._say(WELCOME, encode(Welcome(VERSION, self.limits)))
        self._start()

    def open(self, call: Call) -> int:
        """The number of a new stream for `call`."""
        if not self.may_open:
            raise LocalProtocolError("no stream may be opened now")
        stream = self._streams.new(OPENER)
        self._say(OPEN, encode(call), stream)
        self._streams.add(stream)
        return stream.number

    def room(self, number: int) -> int:
        """How many bytes `send` takes now on this stream."""
        return min(MAX_DATA, self._streams.find(number).credit.left, self._credit.left)

    def send(self, number: int, data: bytes) -> None:
        """DATA of 1 to `room` bytes."""
        stream, size = self._streams.find(number), len(data)
        if not 0 < size <= min(MAX_DATA, stream.credit.left, self._credit.left):
            raise LocalProtocolError(f"{size} bytes of DATA where 1 to {self.room(number)} are allowed")
        self._say(DATA, data, stream)
        stream.sent += size
        stream.credit.left -= size
        self._credit.left -= size

    def end(self, number: int, done: Done) -> None:
        """All is said on this stream. The answerer's END is the end of it for both."""
        self._say_last(END, number, done)

    def cancel(self, number: int) -> None:
        """We, who opened the stream, want no more of it; the answerer hears how many bytes came."""
        self._say_last(CANCEL, number, Cancel(self._streams.find(number).received))

    def reset(self, number: int, refusal: Refusal) -> None:
        """The stream cannot go on."""
        self._say_last(RESET, number, refusal)

    def consume(self, number: int, amount: int) -> None:
        """`amount` bytes of DATA of this stream, open or not by now, are no longer held: room for more."""
        if self.closed:
            return
        self._grant(self._window.give_back(amount))
        stream = self._streams.get(number)
        if stream is not None and stream.wants_more:
            self._grant(stream.window.give_back(amount), stream)

    def control(self, message: Control) -> None:
        """A message about the connection as a whole. It needs no credit and is at most as long as the peer's `control_bytes`."""
        self._say(CONTROL, encode(message))

    def leave(self, refusal: Refusal, now: float) -> None:
        """Opens and takes no more streams; the open ones have `drain_seconds` left. Idempotent."""
        if not self.closed and self._ours is not LEAVING:
            self._say(GOAWAY, encode(refusal))
            self._liveness.drain(now)
            self.left = True

    def close(self, refusal: Refusal) -> None:
        """Ends the connection at once and tells the peer why. Idempotent."""
        if not self.closed:
            self._say(GOAWAY, encode(refusal))
        self._move(CLOSED, self._theirs)
        self._liveness.stop()

    def take(self) -> bytes:
        """What is to be written to the wire."""
        data = b"".join(self._out)
        self._out.clear()
        self.waiting = 0
        return data

    def tick(self, now: float) -> Refusal | None:
        """Does what is due at `now`. Not None: the connection has ended, for this reason."""
        match self._liveness.check(now, self.streams > 0):
            case Due.PING:
                self._unanswered += 1
                self._say(PING)
            case Due.IDLE:
                self.leave(IDLE, now)
            case Due.OVERDUE:
                return self._give_up(SLOW_DRAIN if self._ours is LEAVING else SLOW_HANDSHAKE)
            case Due.DEAD:
                return self._give_up(DEAD)
        return None

    def _say(self, kind: Kind, payload: bytes = b"", stream: StreamState | None = None) -> None:
        """The one way out."""
        phase, size = self._sayable.get(kind), len(payload)
        if phase is None:
            raise LocalProtocolError(f"{kind.name} from a {self._side} that is {self._ours}")
        if size > self._peer_limits.control_bytes and kind is not DATA:
            raise LocalProtocolError(f"a {kind.name} of {size} bytes is more than the peer takes")
        number = 0
        if stream is not None:
            stream.say(kind)
            number = stream.number
        if phase is not self._ours:
            self._move(phase, GREETINGS.get(kind, self._theirs))
        self._out += (HEADER.pack(size, kind, number), payload)
        self.waiting += HEADER.size + size

    def _say_last(self, kind: Kind, number: int, message: Message) -> None:
        stream = self._streams.find(number)
        self._say(kind, encode(message), stream)
        self._settle(stream)

    def _grant(self, amount: int, stream: StreamState | None = None) -> None:
        if amount:
            self._say(WINDOW, amount.to_bytes(4, "big"), stream)

    def _give_up(self, refusal: Refusal) -> Refusal:
        self.close(refusal)
        return refusal

    # What we hear

    def receive(self, data: bytes, now: float) -> Iterator[Event]:
        """The events that `data` brings; PeerFault after those that came before a violation. Iterate to the end."""
        self._now = now
        self._liveness.heard(now, self.streams > 0)
        try:
            for frame in self._decoder.feed(data):
                if self.closed:  # perhaps by the caller, over the last event
                    return
                event = self._hear(frame)
                if event is not None:
                    yield event
        except PeerFault as fault:
            self.close(Refusal.of(fault))
            raise

    def _hear(self, frame: Frame) -> Event | None:
        """The one way in."""
        kind, number, payload = frame.kind, frame.stream, frame.payload
        if len(payload) < SMALL:
            self._count_small()
        phase = self._hearable.get(kind)
        if phase is None:
            raise violation(f"{kind.name} from a {self._peer} that is {self._theirs}")
        if phase is not self._theirs:
            self._move(GREETINGS.get(kind, self._ours), phase)
        if number:
            return self._hear_on_stream(kind, number, payload)
        act = _ON_CONNECTION.get(kind)
        if act is None:
            raise violation(f"{kind.name} without a stream")
        return act(self, payload)

    def _count_small(self) -> None:
        """A frame costs about the same whatever is in it; PeerFault if the peer makes us work for nothing."""
        if not self._small.holds(self._now):
            raise violation("too many frames with hardly anything in them")
        self._small.take()

    def _hear_on_stream(self, kind: Kind, number: int, payload: bytes) -> Event | None:
        act = _ON_STREAM.get(kind)
        if act is None:
            raise violation(f"{kind.name} on a stream")
        stream = self._streams.hear(kind, number)
        if stream is None:
            return None
        left = stream.ours is GONE
        event = act(self, stream, payload)
        return None if left else event

    def _on_hello(self, payload: bytes) -> Event:
        hello = decode(payload, _hello)
        self._meet(hello.limits)
        return events.Greeted(hello)

    def _on_welcome(self, payload: bytes) -> Event:
        welcome = decode(payload, _welcome)
        if welcome.version != VERSION:
            raise PeerFault(
                f"the acceptor speaks version {welcome.version} of the protocol, not {VERSION}", code="bad_version"
            )
        self._meet(welcome.limits)
        self._start()
        return events.Welcomed(welcome)

    def _on_control(self, payload: bytes) -> Event:
        return events.Told(decode(payload, _control))

    def _on_ping(self, payload: bytes) -> None:
        _expect(payload, 0)
        self._say(PONG)

    def _on_pong(self, payload: bytes) -> None:
        _expect(payload, 0)
        if not self._unanswered:
            raise violation("a PONG without a PING")
        self._unanswered -= 1

    def _on_goaway(self, payload: bytes) -> Event:
        return events.Leaving(decode(payload, _refusal))

    def _on_window(self, payload: bytes) -> Event:
        self._credit.grant(_amount(payload))
        return events.Granted(0)

    def _on_open(self, stream: StreamState, payload: bytes) -> Event | None:
        call: Call = decode(payload, _call)
        if self._ours is LEAVING:
            self.reset(stream.number, CLOSING)
            return None
        return events.Opened(stream.number, call)

    def _on_data(self, stream: StreamState, payload: bytes) -> Event | None:
        size = len(payload)
        if not size:
            raise violation("empty DATA")
        self._window.take(size)
        stream.window.take(size)
        if stream.ours is GONE:
            self._grant(self._window.give_back(size))
            return None
        stream.received += size
        return events.Received(stream.number, payload)

    def _on_end(self, stream: StreamState, payload: bytes) -> Event:
        done = decode(payload, _done)
        self._settle(stream)
        return events.Ended(stream.number, done)

    def _on_cancel(self, stream: StreamState, payload: bytes) -> Event:
        cancel = decode(payload, _cancel)
        if cancel.received > stream.sent:
            raise violation(f"a CANCEL after {cancel.received} bytes, where {stream.sent} were sent")
        self._settle(stream)
        return events.Cancelled(stream.number, cancel)

    def _on_reset(self, stream: StreamState, payload: bytes) -> Event:
        refusal = decode(payload, _refusal)
        self._settle(stream)
        return events.Broken(stream.number, refusal)

    def _on_stream_window(self, stream: StreamState, payload: bytes) -> Event:
        stream.credit.grant(_amount(payload))
        return events.Granted(stream.number)

    # What follows

    def _move(self, ours: Phase, theirs: Phase) -> None:
        """How far both sides are by now, and what holds until that changes."""
        self._ours, self._theirs = ours, theirs
        self._sayable, self._hearable = CONNECTION[self._side][ours], CONNECTION[self._peer][theirs]
        self._active = ours is theirs is ACTIVE
        self.leaving = LEAVING in (ours, theirs)
        """Whether one of the two said GOAWAY."""
        self.closed = CLOSED in (ours, theirs)
        """Whether nothing more can be said or heard."""

    def _meet(self, limits: Limits) -> None:
        """From now on we keep within the peer's limits."""
        self._peer_limits = limits
        self._credit = Credit(limits.connection_window)
        self._streams = Streams(self._side, self.limits, limits)

    def _start(self) -> None:
        """Both are greeted."""
        self._decoder.limit = self.limits.control_bytes
        self._liveness.start(self._now)

    def _settle(self, stream: StreamState) -> None:
        """After a last frame: an opener that was answered early cancels, and what both have left is closed."""
        if stream.answered_early:
            self._say(CANCEL, encode(Cancel(stream.received)), stream)
        if stream.closed:
            self._streams.remove(stream)


def _expect(payload: bytes, size: int) -> None:
    if len(payload) != size:
        raise violation(f"a payload of {len(payload)} bytes instead of {size}")


def _amount(payload: bytes) -> int:
    _expect(payload, 4)
    return int.from_bytes(payload, "big")


# What a frame does once the tables allow it. WINDOW stands in both: a stream's credit, or the connection's.
_ON_CONNECTION: Final[Mapping[Kind, Callable[[Session, bytes], Event | None]]] = {
    HELLO: Session._on_hello,
    WELCOME: Session._on_welcome,
    CONTROL: Session._on_control,
    PING: Session._on_ping,
    PONG: Session._on_pong,
    GOAWAY: Session._on_goaway,
    WINDOW: Session._on_window,
}

_ON_STREAM: Final[Mapping[Kind, Callable[[Session, StreamState, bytes], Event | None]]] = {
    OPEN: Session._on_open,
    DATA: Session._on_data,
    END: Session._on_end,
    CANCEL: Session._on_cancel,
    RESET: Session._on_reset,
    WINDOW: Session._on_stream_window,
}
