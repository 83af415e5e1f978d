"""Addresses, envelopes and calls: what is out of bounds is refused before anybody acts on it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.adapters.dht import wire
from lloom.adapters.dht.addresses import Reach, is_public, parse, subnet, unpack
from lloom.adapters.dht.wire import MAX_ANSWER, MAX_DATAGRAM, Envelope, Found
from lloom.core.errors import PeerFault
from lloom.core.identity import Identity, NodeId
from lloom.core.records import MAX_RECORD

LOCAL = Reach.of("127.0.0.1", True)
US, THEM = Identity(bytes([1]) * 32), Identity(bytes([2]) * 32)
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
    assert Reach.of(listening, private=True).accepts(host, 4001) is fine


@pytest.mark.parametrize("port", [0, -1, 65_536, 70_000])
def test_no_impossible_port_is_accepted(port: int) -> None:
    assert not LOCAL.accepts("127.0.0.1", port)


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "100.127.255.255",
        "169.254.169.254",
        "192.0.0.8",
        "198.18.0.1",
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "fd00::1",
        "fe80::1",
        "fec0::1",
        "::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::1",
        "2001:0:a00:1::1",
        "ff0e::1",
    ],
)
def test_a_public_node_asks_nobody_in_a_private_network(host: str) -> None:
    assert not Reach.of("::", private=False).accepts(host, 4001)
    address = parse(host)
    assert address is not None
    assert not Reach.of("0.0.0.0", private=False).fits(address)


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "172.32.0.1", "100.128.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "2606::1"]
)
def test_a_public_node_asks_the_internet(host: str) -> None:
    assert Reach.of("::", private=False).accepts(host, 4001)


@pytest.mark.parametrize("host", ["10.0.0.1", "100.64.0.1", "192.168.1.1", "fd00::1", "8.8.8.8"])
def test_a_node_of_a_private_network_asks_both(host: str) -> None:
    assert Reach.of("::", private=True).accepts(host, 4001)


def test_a_subnet_is_what_costs_an_attacker_something() -> None:
    assert subnet("203.0.113.7", 1) == subnet("203.0.113.200", 2) != subnet("203.0.114.7", 1)
    assert subnet("2606:1:2:3::1", 1) == subnet("2606:1:2:ffff::9", 1) != subnet("2606:1:3::1", 1)
    assert subnet("192.168.1.7", 1) == subnet("192.168.1.7", 2) != subnet("192.168.1.8", 1)
    assert subnet("127.0.0.1", 1) != subnet("127.0.0.1", 2)
    assert is_public("203.0.113.7")
    assert not is_public("127.0.0.1")


@given(st.binary(max_size=32))
def test_packed_addresses_are_4_or_16_bytes(packed: bytes) -> None:
    assert (unpack(packed) is not None) is (len(packed) in (4, 16))


def envelope(identity: Identity = US, network: str = "test", now: float = 1e9) -> Envelope:
    return Envelope.of(identity, network, LOCAL, client=False, clock=lambda: now)


def test_an_envelope_tells_who_sent_it_and_when() -> None:
    sealed = envelope().open(envelope(THEM, now=7.5).close(MESSAGE, US.address))
    assert (sealed.sender, sealed.time, sealed.message) == (THEM.address, 7.5, MESSAGE)
    envelope().check(sealed)


def test_envelopes_for_others_are_not_believed() -> None:
    sealed = envelope().open(envelope(THEM).close(MESSAGE, NodeId(bytes(20))))
    with pytest.raises(PeerFault):
        envelope().check(sealed)


def test_envelopes_of_other_networks_are_not_opened() -> None:
    with pytest.raises(PeerFault, match="network"):
        envelope().open(envelope(network="other").close(MESSAGE, US.address))


@given(st.binary(max_size=1500))
def test_whatever_arrives_is_a_datagram_or_the_peers_fault(noise: bytes) -> None:
    for data in (noise, envelope(THEM).close(noise, US.address)):
        try:
            sealed = envelope().open(data)
            envelope().check(sealed)
            wire.decode_call(sealed.message[wire.HEAD_BYTES :])
        except PeerFault:
            continue


def test_datagrams_of_impossible_size_are_refused() -> None:
    for message in (MESSAGE + bytes(MAX_DATAGRAM), bytes(65_000), MESSAGE[:20], b""):
        with pytest.raises(PeerFault, match="size"):
            envelope().open(envelope(THEM).close(message, US.address))


@pytest.mark.parametrize(("method", "arguments"), [("find_node", [bytes(20)]), ("find_value", [bytes(20), bytes(20)])])
def test_calls_that_want_much_are_long_enough_for_the_longest_answer(
    method: wire.Method, arguments: list[bytes]
) -> None:
    call = wire.encode([method, wire.padded(method, *arguments)])
    assert wire.decode_call(call)[1][:-1] == tuple(arguments)
    length = len(envelope().close(wire.CALL + bytes(20) + call, US.address))
    assert wire.room(length) == MAX_ANSWER


@given(st.integers(wire.HEADER_BYTES + wire.HEAD_BYTES, MAX_DATAGRAM))
def test_a_call_brings_about_at_most_three_times_its_length(length: int) -> None:
    ping = len(envelope().close(wire.CALL + bytes(20) + wire.encode(["ping", []]), US.address))
    answer = wire.HEADER_BYTES + wire.HEAD_BYTES + wire.room(length)
    assert answer + ping <= wire.AMPLIFICATION * length
    assert answer <= MAX_DATAGRAM


def test_the_shortest_call_may_be_answered_and_so_may_a_ping() -> None:
    assert wire.room(wire.PING_BYTES) >= len(wire.encode((bytes(16), 65_535)))


ID = bytes(20)
CALLS = [["ping", []], ["store", [ID, b"record"]], ["find_node", [ID, b""]], ["find_value", [ID, ID, b""]]]


@pytest.mark.parametrize("call", CALLS, ids=[str(call[0]) for call in CALLS])
def test_each_call_takes_its_arguments_and_no_others(call: list[object]) -> None:
    method, arguments = call
    assert isinstance(arguments, list)
    assert wire.decode_call(msgspec.msgpack.encode(call)) == (method, tuple(arguments))
    for position in range(len(arguments)):
        for bad in (b"", bytes(19), b"\0" + bytes(20), "x" * 20, 7, None, [], {}, bytes(1000)):
            if position == len(arguments) - 1 and isinstance(bad, bytes) and len(bad) <= MAX_RECORD:
                continue
            wrong = [*arguments[:position], bad, *arguments[position + 1 :]]
            with pytest.raises(PeerFault):
                wire.decode_call(msgspec.msgpack.encode([method, wrong]))
    for wrong in ([*arguments, ID], arguments[1:] or [ID], b"", None):
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
