"""The open streams of one connection: who is how far on each, what each may still send. It never sees a payload."""

from __future__ import annotations

from lloom.core.bridge.credit import Credit, Window
from lloom.core.bridge.frames import MAX_STREAM, OPEN, WINDOW, Kind, violation
from lloom.core.bridge.states import ANSWERER, GONE, LATE, OPENER, START, STREAM, TALKING, Part, Side
from lloom.core.errors import LocalProtocolError
from lloom.core.messages import Limits


class StreamState:
    """Both halves of one stream, and the credit in both directions."""

    __slots__ = ("credit", "number", "our_turns", "ours", "part", "received", "sent", "their_turns", "theirs", "window")

    def __init__(self, number: int, part: Part, credit: Credit, window: Window) -> None:
        self.number = number
        self.part = part
        self.our_turns, self.ours = STREAM[part], START[part]
        other = part.other
        self.their_turns, self.theirs = STREAM[other], START[other]
        self.credit = credit
        self.window = window
        self.sent = 0
        self.received = 0

    @property
    def closed(self) -> bool:
        """Whether both have sent their last frame."""
        opener, answerer = (self.ours, self.theirs) if self.part is OPENER else (self.theirs, self.ours)
        return answerer is GONE and opener is not TALKING

    @property
    def answered_early(self) -> bool:
        """Whether the answer is over while we, who opened the stream, are still talking."""
        return self.part is OPENER and self.theirs is GONE and self.ours is TALKING

    @property
    def wants_more(self) -> bool:
        """Whether credit for this stream still means anything."""
        return self.theirs is TALKING and WINDOW in self.our_turns[self.ours]

    def say(self, kind: Kind) -> None:
        """We send a frame; LocalProtocolError if it is not our turn."""
        half = self.our_turns[self.ours].get(kind)
        if half is None:
            raise LocalProtocolError(f"{kind.name} on stream {self.number} from an {self.part} that is {self.ours}")
        self.ours = half

    def hear(self, kind: Kind) -> None:
        """The peer sent a frame; PeerFault if it was not its turn."""
        half = self.their_turns[self.theirs].get(kind)
        if half is None:
            raise violation(f"{kind.name} on stream {self.number} from an {self.part.other} that is {self.theirs}")
        self.theirs = half


class Streams:
    """All open streams: their numbers, and how many each side may have at once."""

    __slots__ = ("_next", "_open", "_ours", "_peer", "_streams", "_theirs")

    def __init__(self, side: Side, ours: Limits, theirs: Limits) -> None:
        """`ours` binds what the peer opens and sends, `theirs` what we do."""
        self._ours = ours
        self._theirs = theirs
        self._peer = side.other
        self._streams: dict[int, StreamState] = {}
        self._next = {OPENER: side.first, ANSWERER: side.other.first}
        self._open = {OPENER: 0, ANSWERER: 0}

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def free(self) -> bool:
        """Whether we may open another one."""
        return self._open[OPENER] < self._theirs.streams and self._next[OPENER] <= MAX_STREAM

    def get(self, number: int) -> StreamState | None:
        """The open stream of that number."""
        return self._streams.get(number)

    def find(self, number: int) -> StreamState:
        """The stream that we mean to use; LocalProtocolError if it is not open."""
        stream = self._streams.get(number)
        if stream is None:
            raise LocalProtocolError(f"stream {number} is not open")
        return stream

    def hear(self, kind: Kind, number: int) -> StreamState | None:
        """The stream that the peer's frame is about, moved by it. None: it is closed, the frame merely late. Else PeerFault."""
        stream = self._accept(number) if kind is OPEN else self._streams.get(number)
        if stream is not None:
            stream.hear(kind)
        elif kind not in LATE or number % 2 != self._peer.first % 2 or number >= self._next[ANSWERER]:
            raise violation(f"{kind.name} on stream {number}, which is not open")
        return stream

    def new(self, part: Part) -> StreamState:
        """The next stream of ours (opener) or of the peer's (answerer). It is open once it is added."""
        return StreamState(self._next[part], part, Credit(self._theirs.stream_window), Window(self._ours.stream_window))

    def add(self, stream: StreamState) -> None:
        """Opens `stream`."""
        self._streams[stream.number] = stream
        self._next[stream.part] += 2
        self._open[stream.part] += 1

    def remove(self, stream: StreamState) -> None:
        """Closes `stream`."""
        del self._streams[stream.number]
        self._open[stream.part] -= 1

    def _accept(self, number: int) -> StreamState:
        if number != self._next[ANSWERER]:
            raise violation(f"OPEN of stream {number} where {self._next[ANSWERER]} is next")
        if self._open[ANSWERER] >= self._ours.streams:
            raise violation(f"more than {self._ours.streams} streams")
        stream = self.new(ANSWERER)
        self.add(stream)
        return stream
