"""Addresses, envelopes and calls: what is out of bounds is refused before anybody acts on it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.adapters.dht import wire
from lloom.adapters.dht.addresses import Reach, inward, split, unpack
from lloom.adapters.dht.wire import MAX_ANSWER, MAX_DATAGRAM, Envelope, Found, Sender
from lloom.core.errors import ConfigError, PeerFault
from lloom.core.records import MAX_RECORD

LOCAL = Reach.of("127.0.0.1")
MESSAGE = wire.CALL + bytes(wire.MESSAGE_ID_BYTES) + b"\xc0"


@pytest.mark.parametrize(
    ("listening", "host", "fine"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.7.7.7", True),
        ("127.0.0.1", "192.0.2.1", False),
        ("127.0.0.1", "::1", False),
        ("::1", "::1", True),
        ("::1", "127.0.0.1", False),
        ("0.0.0.0", "127.0.0.1", False),
        ("0.0.0.0", "192.168.1.7", True),
        ("0.0.0.0", "8.8.8.8", True),
        ("0.0.0.0", "0.0.0.0", False),
        ("0.0.0.0", "224.0.0.1", False),
        ("0.0.0.0", "255.255.255.255", False),
        ("0.0.0.0", "2001:db8::1", False),
        ("::", "2001:4860::1", True),
        ("::", "8.8.8.8", True),
        ("::", "::", False),
        ("::", "ff02::1", False),
        ("::", "fe80::1", False),
        ("::", "::ffff:8.8.8.8", False),
        ("0.0.0.0", "example.org", False),
        ("0.0.0.0", "", False),
        ("::", "fe80::1%eth0", False),
    ],
)
def test_only_addresses_that_can_be_reached_from_here_are_accepted(listening: str, host: str, fine: bool) -> None:
    assert Reach.of(listening).accepts(host, 4001) is fine


@pytest.mark.parametrize("port", [0, -1, 65_536, 70_000])
def test_no_impossible_port_is_accepted(port: int) -> None:
    assert not LOCAL.accepts("127.0.0.1", port)


def test_a_socket_for_both_families_translates_addresses_there_and_back() -> None:
    both = Reach.of("::")
    assert both.outward("8.8.8.8") == "::ffff:8.8.8.8"
    assert inward("::ffff:8.8.8.8") == "8.8.8.8"
    assert both.outward("2001:db8::1") == inward("2001:db8::1") == "2001:db8::1"
    assert LOCAL.outward("127.0.0.1") == "127.0.0.1"


@given(st.binary(max_size=32))
def test_packed_addresses_are_4_or_16_bytes(packed: bytes) -> None:
    assert (unpack(packed) is not None) is (len(packed) in (4, 16))


def test_seeds_are_host_and_port() -> None:
    assert split("example.org:4001") == ("example.org", 4001)
    assert split("[::1]:4001") == ("::1", 4001)
    for wrong in ("example.org", "x:", ":1", "x:0", "x:65536", "x:+1", "x:٣"):
        with pytest.raises(ConfigError):
            split(wrong)


@pytest.mark.parametrize("client", [True, False])
def test_an_envelope_tells_who_sent_it(client: bool) -> None:
    envelope = Envelope.of("test", LOCAL, client)
    assert envelope.open(envelope.close(MESSAGE), ("127.0.0.1", 4001)) == (Sender("127.0.0.1", 4001, client), MESSAGE)


def test_envelopes_of_other_networks_are_not_opened() -> None:
    ours, theirs = Envelope.of("test", LOCAL, False), Envelope.of("other", LOCAL, False)
    with pytest.raises(PeerFault, match="network"):
        ours.open(theirs.close(MESSAGE), ("127.0.0.1", 4001))


@given(st.binary(max_size=1500))
def test_whatever_arrives_is_a_datagram_or_the_peers_fault(noise: bytes) -> None:
    envelope = Envelope.of("test", LOCAL, False)
    for datagram in (noise, envelope.close(noise)):
        try:
            _, message = envelope.open(datagram, ("127.0.0.1", 4001))
            wire.decode_call(message[21:])
        except PeerFault:
            continue


def test_datagrams_from_nowhere_and_of_impossible_size_are_refused() -> None:
    envelope = Envelope.of("test", LOCAL, False)
    with pytest.raises(PeerFault, match="answered"):
        envelope.open(envelope.close(MESSAGE), ("192.0.2.1", 4001))
    with pytest.raises(PeerFault, match="size"):
        envelope.open(envelope.close(MESSAGE + bytes(MAX_DATAGRAM)), ("127.0.0.1", 4001))
    with pytest.raises(PeerFault, match="size"):
        envelope.open(envelope.close(MESSAGE[:21]), ("127.0.0.1", 4001))


ID = bytes(20)
CALLS = [["ping", [ID]], ["store", [ID, ID, b"record"]], ["find_node", [ID, ID]], ["find_value", [ID, ID, ID]]]


@pytest.mark.parametrize("call", CALLS, ids=[str(call[0]) for call in CALLS])
def test_each_call_takes_its_arguments_and_no_others(call: list[object]) -> None:
    method, arguments = call
    assert isinstance(arguments, list)
    assert wire.decode_call(msgspec.msgpack.encode(call)) == (method, tuple(arguments))
    for position in range(len(arguments)):
        for bad in (b"", bytes(19), b"\0" + bytes(20), "x" * 20, 7, None, [], {}, bytes(MAX_RECORD + 1)):
            if method == "store" and position == 2 and isinstance(bad, bytes) and len(bad) <= MAX_RECORD:
                continue
            wrong = [*arguments[:position], bad, *arguments[position + 1 :]]
            with pytest.raises(PeerFault):
                wire.decode_call(msgspec.msgpack.encode([method, wrong]))
    for wrong in (arguments[:-1], [*arguments, ID], b"", None):
        with pytest.raises(PeerFault):
            wire.decode_call(msgspec.msgpack.encode([method, wrong]))


@pytest.mark.parametrize("name", ["stun", "welcome_if_new", "__init__", 7, b"ping", None])
def test_nothing_else_can_be_called(name: object) -> None:
    with pytest.raises(PeerFault):
        wire.decode_call(msgspec.msgpack.encode([name, [ID]]))


def test_a_name_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(PeerFault):
        wire.decode_call(b"\x92\xa4\xff\xff\xff\xff\x90")


def test_the_largest_answers_fit_a_safe_datagram() -> None:
    neighbour = (ID, bytes(16), 65_535)
    assert len(wire.encode([neighbour] * wire.MAX_NEIGHBOURS)) <= MAX_ANSWER
    beside = [neighbour] * wire.MAX_NEIGHBOURS_BESIDE_RECORDS
    room = MAX_ANSWER - wire.FOUND_OVERHEAD - len(wire.encode(beside))
    count = room // (MAX_RECORD + wire.RECORD_OVERHEAD)
    assert count >= 1
    answer = Found([bytes(MAX_RECORD)] * count, 2**32 - 1, beside)
    assert len(wire.encode(answer)) <= MAX_ANSWER
    small = Found([bytes(60)] * (room // 63), 2**32 - 1, beside)
    assert len(wire.encode(small)) <= MAX_ANSWER


@pytest.mark.parametrize(
    "answer",
    [
        42,
        [[b"x" * 20, b"1234", 70_000]],
        [["x" * 20, b"1234", 1]],
        [[bytes(21), b"1234", 1]],
        [[ID, "127.0.0.1", 1]],
        [[ID, b"1234", True]],
        [[ID, b"1234", 1]] * (wire.MAX_NEIGHBOURS + 1),
        {"value": [1]},
    ],
)
def test_malformed_neighbours_are_refused(answer: object) -> None:
    with pytest.raises(PeerFault):
        wire.decode(msgspec.msgpack.encode(answer), wire.find_node_answer)
    with pytest.raises(PeerFault):
        wire.decode(msgspec.msgpack.encode([[], 0, answer]), wire.find_value_answer)
