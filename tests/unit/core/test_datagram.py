"""Sealed datagrams: nobody else's, nobody else's recipient, not one bit changed, and no call twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core import datagram
from lloom.core.datagram import CLIENT, GREETING, HEADER_BYTES, Replays
from lloom.core.errors import PeerFault
from lloom.core.identity import Identity, NodeId

ALICE, BOB, CAROL = (Identity(bytes([number]) * 32) for number in (1, 2, 3))
TAG = datagram.tag("test")
NOW = 1_700_000_000.25


def sealed(message: bytes = b"hello", recipient: NodeId | None = BOB.address, network: str = "test") -> bytes:
    return datagram.seal(message, ALICE, network, recipient=recipient, client=False, now=NOW)


def opened(data: bytes, recipient: NodeId = BOB.address) -> datagram.Sealed:
    parts = datagram.unseal(data, TAG)
    datagram.check(parts, "test", recipient)
    return parts


@pytest.mark.parametrize("client", [True, False])
@given(message=st.binary(max_size=1200))
def test_what_is_sealed_for_somebody_opens_there(client: bool, message: bytes) -> None:
    data = datagram.seal(message, ALICE, "test", recipient=BOB.address, client=client, now=NOW)
    parts = opened(data)
    assert (parts.sender, parts.time, parts.message) == (ALICE.address, NOW, message)
    assert parts.flags == (CLIENT if client else 0)
    assert len(data) == HEADER_BYTES + len(message)


def test_what_is_sealed_for_one_node_is_worth_nothing_at_another() -> None:
    with pytest.raises(PeerFault, match="did not sign"):
        opened(sealed(), CAROL.address)


def test_a_greeting_is_for_whoever_is_there() -> None:
    for somebody in (BOB, CAROL):
        assert opened(sealed(recipient=None), somebody.address).flags == GREETING


def test_neither_can_a_greeting_be_turned_into_a_call_nor_a_call_into_a_greeting() -> None:
    for data in (sealed(), sealed(recipient=None)):
        turned = data[:3] + bytes([data[3] ^ GREETING]) + data[4:]
        with pytest.raises(PeerFault):
            opened(turned)


def test_not_one_bit_can_be_changed() -> None:
    data = sealed()
    for position in range(len(data)):
        for bit in range(8):
            flipped = data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]
            with pytest.raises(PeerFault):
                opened(flipped)


def test_nobody_speaks_for_another() -> None:
    parts = datagram.unseal(sealed(), TAG)
    with pytest.raises(PeerFault):
        datagram.check(parts._replace(sender=CAROL.address), "test", BOB.address)


def test_another_network_is_told_by_its_tag_and_by_its_signature() -> None:
    with pytest.raises(PeerFault, match="network"):
        datagram.unseal(sealed(network="other"), TAG)
    parts = datagram.unseal(sealed(network="other"), datagram.tag("other"))
    with pytest.raises(PeerFault):
        datagram.check(parts, "test", BOB.address)


@given(st.binary(max_size=300))
def test_noise_is_the_peers_fault(noise: bytes) -> None:
    for data in (noise, datagram.MAGIC + b"\0" + TAG + noise):
        with pytest.raises(PeerFault):
            opened(data)


@given(st.integers(0, 2**64 - 1))
def test_every_time_that_fits_the_field_is_read(milliseconds: int) -> None:
    data = sealed()
    data = data[:28] + milliseconds.to_bytes(8, "big") + data[36:]
    assert datagram.unseal(data, TAG).time == milliseconds / 1000


def test_a_call_is_seen_once_only_while_its_time_is_valid() -> None:
    replays = Replays(lifetime=10, limit=100)
    assert not replays.seen(ALICE.address, b"1" * 20, 0)
    assert not replays.seen(BOB.address, b"1" * 20, 0), "ids of two senders have nothing to do with each other"
    assert not replays.seen(ALICE.address, b"2" * 20, 9.9)
    assert replays.seen(ALICE.address, b"1" * 20, 10)
    assert replays.seen(ALICE.address, b"2" * 20, 19.8)
    assert not replays.seen(ALICE.address, b"1" * 20, 31)
    assert len(replays) == 1


def test_what_was_seen_takes_bounded_memory_and_the_newest_are_known() -> None:
    replays = Replays(lifetime=1e9, limit=100)
    for number in range(1000):
        assert not replays.seen(ALICE.address, number.to_bytes(20, "big"), 0)
        assert len(replays) <= 200
    assert all(replays.seen(ALICE.address, number.to_bytes(20, "big"), 0) for number in range(910, 1000))
