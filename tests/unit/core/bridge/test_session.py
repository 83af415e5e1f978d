from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lloom.core import messages
from lloom.core.bridge import events
from lloom.core.bridge.events import Event
from lloom.core.bridge.frames import MAX_DATA, Decoder, Frame, Kind, encode
from lloom.core.bridge.session import SMALL, Session
from lloom.core.bridge.states import CONNECTION, STREAM, Half, Part, Phase, Side
from lloom.core.errors import LocalProtocolError, PeerFault
from lloom.core.messages import MIN_CONTROL, VERSION, Cancel, Done, Hello, Limits, OfferCall, Receipts, Refusal
from lloom.core.settings import BridgeSettings

SETTINGS: dict[str, Any] = {
    "connect_seconds": 5,
    "handshake_seconds": 5,
    "handshakes": 8,
    "handshakes_per_address": 8,
    "clock_skew_seconds": 60,
    "connections": 8,
    "connections_per_address": 8,
    "handshakes_per_second": 1000,
    "small_frames_per_second": 1000,
    "streams": 4,
    "stream_window": 100,
    "connection_window": 250,
    "control_bytes": MIN_CONTROL,
    "send_buffer": 1000,
    "ping_seconds": 15,
    "idle_seconds": 300,
    "drain_seconds": 10,
    "certificate_seconds": 3600,
}
CALL = OfferCall()
WHY = Refusal(503, "busy", "no place is free")
BROKEN = Refusal(500, "broken", "it broke")


class Wire:
    """Two sessions and the bytes between them."""

    def __init__(self, *, greeted: bool = True, **changes: Any) -> None:
        configuration = BridgeSettings(**{**SETTINGS, **changes})
        self.dialler = Session(Side.DIALLER, configuration, 0)
        self.acceptor = Session(Side.ACCEPTOR, configuration, 0)
        if greeted:
            self.dialler.hello(hello(self.dialler.limits))
            self.to_acceptor()
            self.acceptor.welcome()
            self.to_dialler()

    def to_acceptor(self, now: float = 0) -> list[Event]:
        """What the acceptor hears of all the dialler has to say."""
        return list(self.acceptor.receive(self.dialler.take(), now))

    def to_dialler(self, now: float = 0) -> list[Event]:
        """The same the other way."""
        return list(self.dialler.receive(self.acceptor.take(), now))

    def settle(self) -> None:
        """Everything that was said is heard."""
        while self.dialler.waiting or self.acceptor.waiting:
            self.to_acceptor()
            self.to_dialler()

    def open(self) -> int:
        """A stream that the dialler opened and whose request has ended."""
        number = self.dialler.open(CALL)
        self.dialler.end(number, Done())
        self.to_acceptor()
        return number


def hello(limits: Limits) -> Hello:
    return Hello(VERSION, 0, b"a" * 20, limits, b"s" * 65)


def frame(kind: Kind, stream: int = 0, payload: bytes = b"") -> bytes:
    return encode(Frame(kind, stream, payload))


def told(data: bytes) -> list[tuple[Kind, int]]:
    """The frames of `data`, without their payloads."""
    return [(frame.kind, frame.stream) for frame in Decoder(1 << 20).feed(data)]


PAYLOADS = {
    Kind.HELLO: messages.encode(hello(Limits(4, 100, 250, MIN_CONTROL))),
    Kind.WELCOME: messages.encode(messages.Welcome(VERSION, Limits(4, 100, 250, MIN_CONTROL))),
    Kind.OPEN: messages.encode(CALL),
    Kind.DATA: b"data",
    Kind.END: messages.encode(Done()),
    Kind.CANCEL: messages.encode(Cancel(0)),
    Kind.RESET: messages.encode(BROKEN),
    Kind.WINDOW: (1).to_bytes(4, "big"),
    Kind.PING: b"",
    Kind.PONG: b"",
    Kind.GOAWAY: messages.encode(WHY),
    Kind.CONTROL: messages.encode(Receipts([])),
}


# Greetings


def test_after_hello_and_welcome_both_know_the_limits_of_the_other() -> None:
    wire = Wire(greeted=False)
    said = hello(wire.dialler.limits)
    wire.dialler.hello(said)
    assert wire.to_acceptor() == [events.Greeted(said)]
    wire.acceptor.welcome()
    assert wire.to_dialler() == [events.Welcomed(messages.Welcome(VERSION, wire.acceptor.limits))]
    assert wire.dialler.may_open
    assert wire.acceptor.may_open


@pytest.mark.parametrize("kind", set(Kind) - {Kind.HELLO, Kind.GOAWAY})
def test_an_acceptor_hears_nothing_before_hello(kind: Kind) -> None:
    with pytest.raises(PeerFault, match=kind.name):
        list(Wire(greeted=False).acceptor.receive(frame(kind, 1, PAYLOADS[kind]), 0))


@pytest.mark.parametrize("kind", set(Kind) - {Kind.GOAWAY})
def test_an_acceptor_hears_nothing_between_hello_and_welcome(kind: Kind) -> None:
    wire = Wire(greeted=False)
    wire.dialler.hello(hello(wire.dialler.limits))
    heard = wire.acceptor.receive(wire.dialler.take() + frame(kind, 1, PAYLOADS[kind]), 0)
    assert isinstance(next(heard), events.Greeted)
    with pytest.raises(PeerFault, match=kind.name):
        next(heard)


@pytest.mark.parametrize("kind", set(Kind) - {Kind.WELCOME, Kind.GOAWAY})
def test_a_dialler_hears_nothing_before_welcome(kind: Kind) -> None:
    wire = Wire(greeted=False)
    wire.dialler.hello(hello(wire.dialler.limits))
    with pytest.raises(PeerFault, match=kind.name):
        list(wire.dialler.receive(frame(kind, 2, PAYLOADS[kind]), 0))


def test_a_dialler_cannot_open_before_it_is_welcome() -> None:
    wire = Wire(greeted=False)
    wire.dialler.hello(hello(wire.dialler.limits))
    with pytest.raises(LocalProtocolError):
        wire.dialler.open(CALL)


def test_an_acceptor_refuses_a_hello_with_its_reason_and_is_closed() -> None:
    wire = Wire(greeted=False)
    wire.dialler.hello(hello(wire.dialler.limits))
    wire.to_acceptor()
    wire.acceptor.close(WHY)
    assert wire.to_dialler() == [events.Leaving(WHY)]
    assert wire.dialler.closed
    assert wire.acceptor.closed


def test_a_stranger_may_not_make_us_hold_a_large_frame() -> None:
    wire = Wire(greeted=False, control_bytes=1 << 20)
    with pytest.raises(PeerFault, match="too long"):
        list(wire.acceptor.receive(frame(Kind.HELLO, 0, bytes(MIN_CONTROL + 1)), 0))


def test_limits_that_leave_no_room_for_a_refusal_are_refused() -> None:
    wire = Wire(greeted=False)
    wire.dialler.hello(hello(Limits(1, 1, 1, 10)))
    with pytest.raises(PeerFault):
        wire.to_acceptor()


@pytest.mark.parametrize(
    ("kind", "payload"),
    [(Kind.OPEN, b"\x91\xa3\xff\xff\xff"), (Kind.GOAWAY, PAYLOADS[Kind.GOAWAY].replace(b"busy", b"\xff" * 4))],
)
def test_text_that_is_no_utf8_is_a_violation(kind: Kind, payload: bytes) -> None:
    wire = Wire()
    with pytest.raises(PeerFault, match="malformed"):
        list(wire.acceptor.receive(frame(kind, 1 if kind is Kind.OPEN else 0, payload), 0))
    assert wire.acceptor.closed


# Streams


def test_a_call_and_its_answer() -> None:
    wire = Wire()
    number = wire.dialler.open(CALL)
    wire.dialler.send(number, b"question")
    wire.dialler.end(number, Done())
    assert wire.to_acceptor() == [
        events.Opened(1, CALL),
        events.Received(1, b"question"),
        events.Ended(1, Done()),
    ]
    wire.acceptor.send(number, b"answer")
    wire.acceptor.end(number, Done(1, 2))
    assert wire.to_dialler() == [events.Received(1, b"answer"), events.Ended(1, Done(1, 2))]
    assert (wire.dialler.streams, wire.acceptor.streams) == (0, 0)


def test_the_dialler_opens_odd_streams_and_the_acceptor_even_ones() -> None:
    wire = Wire()
    assert [wire.dialler.open(CALL) for _ in range(3)] == [1, 3, 5]
    assert [wire.acceptor.open(CALL) for _ in range(3)] == [2, 4, 6]


@pytest.mark.parametrize("number", [2, 3, 5])
def test_an_open_out_of_turn_is_a_violation(number: int) -> None:
    with pytest.raises(PeerFault, match="is next"):
        list(Wire().acceptor.receive(frame(Kind.OPEN, number, PAYLOADS[Kind.OPEN]), 0))


def test_a_stream_cannot_be_opened_twice() -> None:
    wire = Wire()
    wire.open()
    with pytest.raises(PeerFault, match="is next"):
        list(wire.acceptor.receive(frame(Kind.OPEN, 1, PAYLOADS[Kind.OPEN]), 0))


def test_one_more_stream_than_allowed_is_a_violation() -> None:
    wire = Wire(streams=2)
    numbers = [wire.dialler.open(CALL), wire.dialler.open(CALL)]
    assert not wire.dialler.may_open
    wire.to_acceptor()
    with pytest.raises(PeerFault, match="more than 2 streams"):
        list(wire.acceptor.receive(frame(Kind.OPEN, numbers[-1] + 2, PAYLOADS[Kind.OPEN]), 0))


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.END, Kind.CANCEL, Kind.RESET, Kind.WINDOW])
@pytest.mark.parametrize("number", [1, 2])
def test_frames_on_a_stream_that_never_was_are_violations(kind: Kind, number: int) -> None:
    with pytest.raises(PeerFault, match="not open"):
        list(Wire().acceptor.receive(frame(kind, number, PAYLOADS[kind]), 0))


@pytest.mark.parametrize("kind", [Kind.CANCEL, Kind.RESET, Kind.WINDOW])
def test_what_may_have_crossed_the_last_frame_of_an_answer_is_ignored(kind: Kind) -> None:
    wire = Wire()
    number = wire.open()
    wire.acceptor.end(number, Done())
    assert list(wire.acceptor.receive(frame(kind, number, PAYLOADS[kind]), 0)) == []


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.END])
def test_data_on_a_closed_stream_is_a_violation(kind: Kind) -> None:
    wire = Wire()
    number = wire.open()
    wire.acceptor.end(number, Done())
    with pytest.raises(PeerFault, match="not open"):
        list(wire.acceptor.receive(frame(kind, number, PAYLOADS[kind]), 0))


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.END, Kind.CANCEL, Kind.RESET, Kind.WINDOW])
def test_an_answerer_that_has_ended_says_no_more(kind: Kind) -> None:
    wire = Wire()
    number = wire.open()
    wire.acceptor.end(number, Done())
    wire.to_dialler()
    with pytest.raises(PeerFault, match="not open"):
        list(wire.dialler.receive(frame(kind, number, PAYLOADS[kind]), 0))


def test_a_cancel_carries_the_bytes_that_arrived_and_frees_the_place_only_when_the_work_has_stopped() -> None:
    wire = Wire(streams=1)
    number = wire.open()
    wire.acceptor.send(number, b"12345")
    wire.to_dialler()
    wire.acceptor.send(number, b"on its way")
    wire.dialler.cancel(number)
    assert wire.to_acceptor() == [events.Cancelled(number, Cancel(5))]
    assert wire.to_dialler() == [], "what was on its way is dropped"
    assert not wire.dialler.may_open, "the answerer is still at work"
    wire.acceptor.reset(number, BROKEN)
    assert wire.to_dialler() == []
    assert wire.dialler.may_open
    assert wire.acceptor.streams == 0


def test_a_cancel_that_claims_more_bytes_than_were_sent_is_a_violation() -> None:
    wire = Wire()
    number = wire.open()
    wire.acceptor.send(number, b"12345")
    with pytest.raises(PeerFault, match="5 were sent"):
        list(wire.acceptor.receive(frame(Kind.CANCEL, number, messages.encode(Cancel(6))), 0))


def test_only_the_opener_cancels() -> None:
    wire = Wire()
    number = wire.open()
    with pytest.raises(LocalProtocolError, match="CANCEL"):
        wire.acceptor.cancel(number)
    with pytest.raises(PeerFault, match="CANCEL"):
        list(wire.dialler.receive(frame(Kind.CANCEL, number, PAYLOADS[Kind.CANCEL]), 0))


def test_an_opener_that_is_answered_before_it_has_ended_cancels_by_itself() -> None:
    wire = Wire()
    number = wire.dialler.open(CALL)
    wire.dialler.send(number, b"half a quest")
    wire.to_acceptor()
    wire.acceptor.reset(number, WHY)
    assert wire.to_dialler() == [events.Broken(number, WHY)]
    assert wire.dialler.streams == 0
    assert told(wire.dialler.take()) == [(Kind.CANCEL, number)]


def test_data_for_a_stream_that_was_reset_is_dropped_and_its_credit_lives_on() -> None:
    wire = Wire(stream_window=100, connection_window=100)
    number = wire.dialler.open(CALL)
    wire.to_acceptor()
    wire.dialler.send(number, bytes(100))
    wire.acceptor.reset(number, WHY)
    assert wire.to_acceptor() == []
    wire.to_dialler()
    wire.to_acceptor()
    assert wire.dialler.room(wire.dialler.open(CALL)) == 100
    assert wire.acceptor.streams == 0


def test_a_reset_reaches_the_answerer_who_then_ends() -> None:
    wire = Wire()
    number = wire.open()
    wire.dialler.reset(number, BROKEN)
    assert wire.to_acceptor() == [events.Broken(number, BROKEN)]
    wire.acceptor.end(number, Done())
    assert wire.to_dialler() == []
    assert (wire.dialler.streams, wire.acceptor.streams) == (0, 0)


# Credit


def test_room_is_what_stream_and_connection_both_allow() -> None:
    wire = Wire(stream_window=100, connection_window=150)
    first, second = wire.dialler.open(CALL), wire.dialler.open(CALL)
    assert (wire.dialler.room(first), wire.dialler.room(second)) == (100, 100)
    wire.dialler.send(first, bytes(100))
    assert (wire.dialler.room(first), wire.dialler.room(second)) == (0, 50)


def test_a_frame_of_data_is_never_larger_than_the_limit() -> None:
    wire = Wire(stream_window=10 * MAX_DATA, connection_window=10 * MAX_DATA)
    assert wire.dialler.room(wire.dialler.open(CALL)) == MAX_DATA


@pytest.mark.parametrize("size", [0, 101])
def test_more_data_than_there_is_room_for_is_our_own_fault_and_changes_nothing(size: int) -> None:
    wire = Wire()
    number = wire.dialler.open(CALL)
    with pytest.raises(LocalProtocolError):
        wire.dialler.send(number, bytes(size))
    assert wire.dialler.room(number) == 100


@pytest.mark.parametrize(("window", "connection"), [(100, 250), (250, 100)])
def test_data_beyond_the_credit_is_a_violation(window: int, connection: int) -> None:
    wire = Wire(stream_window=window, connection_window=connection)
    number = wire.dialler.open(CALL)
    wire.to_acceptor()
    with pytest.raises(PeerFault, match="101 bytes of DATA where 100 were granted"):
        list(wire.acceptor.receive(frame(Kind.DATA, number, bytes(101)), 0))


def test_empty_data_is_a_violation() -> None:
    wire = Wire()
    number = wire.dialler.open(CALL)
    wire.to_acceptor()
    with pytest.raises(PeerFault, match="empty"):
        list(wire.acceptor.receive(frame(Kind.DATA, number), 0))


def test_new_credit_goes_out_when_half_the_window_was_consumed() -> None:
    wire = Wire(stream_window=100, connection_window=1000)
    number = wire.dialler.open(CALL)
    wire.dialler.send(number, bytes(100))
    wire.to_acceptor()
    wire.acceptor.consume(number, 49)
    assert not wire.acceptor.waiting
    wire.acceptor.consume(number, 1)
    assert wire.to_dialler() == [events.Granted(number)]
    assert wire.dialler.room(number) == 50


def test_however_much_of_the_connections_window_is_held_the_rest_of_it_goes_round() -> None:
    wire = Wire(streams=8, stream_window=100, connection_window=800)
    *idle, read = [wire.open() for _ in range(8)]
    for number in idle:
        wire.acceptor.send(number, bytes(100))
    wire.to_dialler()  # who reads none of them
    for _ in range(50):
        wire.acceptor.send(read, bytes(60))
        wire.to_dialler()
        wire.dialler.consume(read, 60)
        wire.to_acceptor()


def test_a_side_that_has_ended_gets_no_more_credit_for_its_stream() -> None:
    wire = Wire(stream_window=100, connection_window=1000)
    number = wire.dialler.open(CALL)
    wire.dialler.send(number, bytes(100))
    wire.dialler.end(number, Done())
    wire.to_acceptor()
    wire.acceptor.consume(number, 100)
    assert not wire.acceptor.waiting


def test_what_is_consumed_after_the_end_of_its_stream_still_counts_for_the_connection() -> None:
    wire = Wire(stream_window=100, connection_window=100)
    number = wire.open()
    wire.acceptor.send(number, bytes(100))
    wire.acceptor.end(number, Done())
    wire.to_dialler()
    wire.dialler.consume(number, 100)
    assert wire.to_acceptor() == [events.Granted(0)]


@pytest.mark.parametrize("amount", [0, 1, (1 << 32) - 1])
@pytest.mark.parametrize("on_stream", [True, False])
def test_credit_never_exceeds_the_window(amount: int, on_stream: bool) -> None:
    wire = Wire()
    number = wire.open()
    with pytest.raises(PeerFault, match="WINDOW"):
        list(wire.acceptor.receive(frame(Kind.WINDOW, number if on_stream else 0, amount.to_bytes(4, "big")), 0))


# Control, pings, time


def test_control_messages_need_no_credit() -> None:
    wire = Wire(connection_window=1)
    number = wire.dialler.open(CALL)
    wire.dialler.send(number, b"x")
    message = Receipts([messages.SignedReceipt(b"r" * 300, b"s" * 65)])
    wire.dialler.control(message)
    assert wire.to_acceptor()[-1] == events.Told(message)


def test_a_control_message_over_the_peers_limit_is_our_own_fault() -> None:
    item = messages.SignedReceipt(b"r" * 1000, b"s" * 65)
    with pytest.raises(LocalProtocolError, match="more than the peer takes"):
        Wire().dialler.control(Receipts([item] * 9))


def test_a_pong_without_a_ping_is_a_violation() -> None:
    with pytest.raises(PeerFault, match="PONG"):
        list(Wire().acceptor.receive(frame(Kind.PONG), 0))


@pytest.mark.parametrize("kind", [Kind.PING, Kind.DATA, Kind.CONTROL])
def test_frames_with_hardly_anything_in_them_come_at_a_bounded_rate(kind: Kind) -> None:
    wire = Wire(small_frames_per_second=50)
    number = wire.dialler.open(CALL) if kind is Kind.DATA else 0
    wire.to_acceptor()
    one = frame(kind, number, b"x" if kind is Kind.DATA else PAYLOADS[kind])
    list(wire.acceptor.receive(40 * one, 0))
    with pytest.raises(PeerFault, match="hardly anything"):
        list(wire.acceptor.receive(20 * one, 0))


def test_small_frames_at_a_usual_rate_and_large_ones_at_any_are_heard() -> None:
    wire = Wire(small_frames_per_second=50, stream_window=1 << 20, connection_window=1 << 20)
    number = wire.dialler.open(CALL)
    wire.to_acceptor()
    for second in range(5):
        list(wire.acceptor.receive(45 * frame(Kind.PING), second))
    list(wire.acceptor.receive(1000 * frame(Kind.DATA, number, bytes(SMALL)), 5))
    assert not wire.acceptor.closed


def test_a_ping_is_answered() -> None:
    wire = Wire()
    assert wire.acceptor.wake == 15
    assert wire.acceptor.tick(15) is None
    assert wire.to_dialler() == []
    assert told(wire.dialler.take()) == [(Kind.PONG, 0)]


def test_a_connection_is_dead_after_two_missed_pings() -> None:
    session = Wire(idle_seconds=1000).dialler
    assert [session.tick(now) for now in (15, 30)] == [None, None]
    reason = session.tick(45)
    assert reason is not None
    assert reason.code == "dead"
    assert session.finished
    assert session.wake == math.inf


def test_whatever_is_heard_keeps_a_connection_alive() -> None:
    wire = Wire(idle_seconds=1000)
    for now in (15, 30, 45, 60, 75):
        assert wire.dialler.tick(now) is None
        wire.acceptor.control(Receipts([]))
        wire.to_dialler(now + 1)


def test_a_handshake_has_a_deadline() -> None:
    session = Wire(greeted=False).acceptor
    assert session.wake == 5
    assert session.tick(4.9) is None
    reason = session.tick(5)
    assert reason is not None
    assert reason.code == "slow_handshake"


def test_an_unused_connection_says_goodbye() -> None:
    wire = Wire(ping_seconds=1000)
    assert wire.dialler.tick(299) is None
    assert not wire.dialler.finished
    assert wire.dialler.tick(300) is None
    assert wire.dialler.finished
    assert told(wire.dialler.take()) == [(Kind.GOAWAY, 0)]


def test_a_connection_with_an_open_stream_is_in_use() -> None:
    wire = Wire(ping_seconds=1000)
    number = wire.open()
    wire.dialler.tick(400)
    wire.acceptor.end(number, Done())
    wire.to_dialler(450)
    wire.dialler.tick(700)
    assert not wire.dialler.finished
    wire.dialler.tick(750)
    assert wire.dialler.finished


# The end


def test_goaway_lets_open_streams_end_and_takes_no_new_ones() -> None:
    wire = Wire()
    number = wire.open()
    crossing = wire.dialler.open(CALL)
    wire.acceptor.leave(WHY, 0)
    assert wire.to_acceptor() == [], "an OPEN that crossed the GOAWAY is refused"
    heard = wire.to_dialler()
    assert heard[0] == events.Leaving(WHY)
    assert isinstance(heard[1], events.Broken)
    assert heard[1].stream == crossing
    assert not wire.dialler.may_open
    assert not wire.acceptor.may_open
    assert not wire.acceptor.finished
    wire.settle()
    wire.acceptor.send(number, b"answer")
    wire.acceptor.end(number, Done())
    assert wire.to_dialler() == [events.Received(number, b"answer"), events.Ended(number, Done())]
    assert wire.acceptor.finished
    assert wire.dialler.finished


def test_a_drain_has_a_deadline() -> None:
    wire = Wire()
    wire.open()
    wire.acceptor.leave(WHY, 3)
    assert wire.acceptor.tick(12.9) is None
    reason = wire.acceptor.tick(13)
    assert reason is not None
    assert reason.code == "slow_drain"


def test_a_peer_that_said_goaway_opens_nothing_more() -> None:
    wire = Wire()
    wire.dialler.leave(WHY, 0)
    wire.to_acceptor()
    with pytest.raises(PeerFault, match="leaving"):
        list(wire.acceptor.receive(frame(Kind.OPEN, 1, PAYLOADS[Kind.OPEN]), 0))


def test_a_violation_closes_the_connection_says_why_and_keeps_what_came_before() -> None:
    wire = Wire()
    wire.dialler.open(CALL)
    heard: list[Event] = []
    with pytest.raises(PeerFault, match="PONG without"):  # noqa: PT012
        for event in wire.acceptor.receive(wire.dialler.take() + frame(Kind.PONG), 0):
            heard.append(event)
    assert heard == [events.Opened(1, CALL)]
    assert wire.acceptor.finished
    (farewell,) = wire.to_dialler()
    assert isinstance(farewell, events.Leaving)
    assert "PONG without" in farewell.refusal.message


def test_a_closed_session_hears_nothing_and_says_nothing() -> None:
    wire = Wire()
    wire.dialler.close(WHY)
    wire.dialler.close(WHY)
    assert told(wire.dialler.take()) == [(Kind.GOAWAY, 0)]
    assert list(wire.dialler.receive(frame(Kind.PING), 0)) == []
    with pytest.raises(LocalProtocolError):
        wire.dialler.control(Receipts([]))


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (Kind.PING, 1),
        (Kind.GOAWAY, 1),
        (Kind.CONTROL, 1),
        (Kind.OPEN, 0),
        (Kind.DATA, 0),
        (Kind.END, 0),
        (Kind.CANCEL, 0),
    ],
)
def test_a_frame_stands_on_a_stream_or_on_the_connection_never_on_the_other(kind: Kind, number: int) -> None:
    with pytest.raises(PeerFault, match=kind.name):
        list(Wire().acceptor.receive(frame(kind, number, PAYLOADS[kind]), 0))


def test_every_state_of_the_tables_can_be_reached() -> None:
    for machine in (*CONNECTION.values(), *STREAM.values()):
        reached = {state for moves in machine.values() for state in moves.values()}
        assert reached <= set(machine)
    assert set(CONNECTION[Side.DIALLER]) == set(CONNECTION[Side.ACCEPTOR]) == set(Phase)
    assert set(STREAM[Part.OPENER]) == set(Half)


# Anything at all

frames_of_any_kind = st.builds(
    lambda kind, stream, payload, valid: frame(kind, stream, PAYLOADS[kind] if valid else payload),
    st.sampled_from(Kind),
    st.integers(0, 6),
    st.binary(max_size=40),
    st.sampled_from([True, True, True, False]),
)


@given(
    st.sampled_from(["new", "greeting", "active", "busy", "leaving"]),
    st.lists(st.binary(max_size=60) | frames_of_any_kind),
)
@settings(max_examples=400)
def test_whatever_a_peer_sends_raises_nothing_but_a_peer_fault(state: str, pieces: list[bytes]) -> None:
    wire = Wire(greeted=state not in ("new", "greeting"))
    if state == "greeting":
        wire.dialler.hello(hello(wire.dialler.limits))
        wire.to_acceptor()
    if state in ("busy", "leaving"):
        wire.open()
        wire.dialler.open(CALL)
        wire.to_acceptor()
        wire.acceptor.send(1, b"12345")
        wire.acceptor.open(CALL)
    if state == "leaving":
        wire.acceptor.leave(WHY, 0)
    for piece in pieces:
        try:
            for event in wire.acceptor.receive(piece, 0):
                if isinstance(event, events.Received):
                    wire.acceptor.consume(event.stream, len(event.data))
        except PeerFault:
            assert wire.acceptor.finished


class TwoSessions(RuleBasedStateMachine):
    """Both sides do whatever they are allowed to, in any order, and the network cuts and delays as it likes."""

    def __init__(self) -> None:
        super().__init__()
        wire = Wire(streams=3, stream_window=20, connection_window=30)
        self.sides = {"dialler": wire.dialler, "acceptor": wire.acceptor}
        self.flying = {"dialler": b"", "acceptor": b""}
        self.mine: dict[str, dict[int, str]] = {"dialler": {}, "acceptor": {}}
        self.sent: dict[tuple[str, int], bytes] = {}
        self.heard: dict[tuple[str, int], bytes] = {}
        self.held: dict[tuple[str, int], int] = {}
        self.whole: set[tuple[str, int]] = set()
        self.quit: set[int] = set()

    def other(self, side: str) -> str:
        return "acceptor" if side == "dialler" else "dialler"

    def talking(self, side: str) -> list[int]:
        return [number for number, state in self.mine[side].items() if state == "talking"]

    @rule(side=st.sampled_from(["dialler", "acceptor"]))
    def open(self, side: str) -> None:
        session = self.sides[side]
        if session.may_open:
            self.mine[side][session.open(CALL)] = "talking"
        else:
            with pytest.raises(LocalProtocolError):
                session.open(CALL)

    @rule(side=st.sampled_from(["dialler", "acceptor"]), which=st.integers(0, 9), size=st.integers(1, 25))
    def send(self, side: str, which: int, size: int) -> None:
        numbers = self.talking(side)
        if numbers:
            number = numbers[which % len(numbers)]
            start = len(self.sent.get((side, number), b""))
            data = bytes((start + i) % 251 for i in range(min(size, self.sides[side].room(number))))
            if data:
                self.sides[side].send(number, data)
                self.sent[side, number] = self.sent.get((side, number), b"") + data

    @rule(
        side=st.sampled_from(["dialler", "acceptor"]),
        which=st.integers(0, 9),
        how=st.sampled_from(["end", "end", "quit", "reset"]),
    )
    def stop(self, side: str, which: int, how: str) -> None:
        numbers = [n for n, state in self.mine[side].items() if state != "gone"]
        if not numbers:
            return
        number = numbers[which % len(numbers)]
        session, opener = self.sides[side], number % 2 == (side == "dialler")
        if how == "end" and self.mine[side][number] == "talking":
            session.end(number, Done())
            self.mine[side][number] = "listening" if opener else "gone"
            self.whole.add((side, number))
            return
        if how == "quit" and opener:
            session.cancel(number)
        else:
            session.reset(number, BROKEN)
        self.mine[side][number] = "gone"
        self.quit.add(number)

    @rule(side=st.sampled_from(["dialler", "acceptor"]), part=st.floats(0, 1))
    def consume(self, side: str, part: float) -> None:
        for (who, number), amount in list(self.held.items()):
            if who == side and (some := math.ceil(amount * part)):
                self.sides[side].consume(number, some)
                self.held[who, number] -= some

    @rule(side=st.sampled_from(["dialler", "acceptor"]), size=st.integers(1, 60))
    def deliver(self, side: str, size: int) -> None:
        """Some of what the other side said arrives at `side`."""
        other = self.other(side)
        self.flying[other] += self.sides[other].take()
        data, self.flying[other] = self.flying[other][:size], self.flying[other][size:]
        for event in self.sides[side].receive(data, 0):
            self.act(side, event)

    def act(self, side: str, event: Event) -> None:
        match event:
            case events.Opened(number, _):
                self.mine[side][number] = "talking"
            case events.Received(number, data):
                self.heard[side, number] = self.heard.get((side, number), b"") + data
                self.held[side, number] = self.held.get((side, number), 0) + len(data)
            case events.Ended(number, _) | events.Broken(number, _):
                if number % 2 == (side == "dialler"):
                    self.mine[side][number] = "gone"
            case events.Granted() | events.Cancelled():
                pass
            case _:
                raise AssertionError(event)

    @invariant()
    def everything_arrives_in_order(self) -> None:
        for (side, number), heard in self.heard.items():
            assert self.sent[self.other(side), number].startswith(heard)

    @invariant()
    def nobody_holds_more_than_its_windows(self) -> None:
        for side in self.sides:
            held = [amount for (who, _), amount in self.held.items() if who == side]
            assert sum(held) <= 30
            assert max(held, default=0) <= 20

    @precondition(lambda self: self.mine["dialler"] or self.mine["acceptor"])
    @rule()
    def finish(self) -> None:
        """When all is said, heard and consumed, whole streams are whole, and no credit or place is lost."""
        self.drain()
        for side in self.sides:
            for number in [n for n, state in self.mine[side].items() if state != "gone"]:
                if self.mine[side][number] == "talking":
                    self.sides[side].end(number, Done())
                    self.mine[side][number] = "listening" if number % 2 == (side == "dialler") else "gone"
                    self.whole.add((side, number))
                self.drain()
        for side, session in self.sides.items():
            assert session.streams == 0
            assert session._credit.left + self.sides[self.other(side)]._window._returned == 30
        for (side, number), sent in self.sent.items():
            if (side, number) in self.whole and number not in self.quit and self.listens(side, number):
                assert self.heard[self.other(side), number] == sent

    def listens(self, side: str, number: int) -> bool:
        """Whether the whole of what `side` sent is of interest: an answer always is, a request only until it is answered."""
        return number % 2 != (side == "dialler")

    def drain(self) -> None:
        for side in self.sides:  # what arrived before may be all that is left
            self.consume(side, 1)
        while any(self.flying.values()) or any(session.waiting for session in self.sides.values()):
            for side in self.sides:
                self.deliver(side, 1 << 20)
                self.consume(side, 1)


TwoSessions.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
test_two_sessions_agree_whatever_they_do = TwoSessions.TestCase


def test_iterating_is_what_makes_things_happen() -> None:
    wire = Wire()
    wire.dialler.open(CALL)
    heard: Iterator[Event] = wire.acceptor.receive(wire.dialler.take(), 0)
    assert wire.acceptor.streams == 0
    assert list(heard) == [events.Opened(1, CALL)]
    assert wire.acceptor.streams == 1
