"""Strikes, back-off and the timeouts that follow from how peers answered."""

from __future__ import annotations

from kademlia.node import Node

from lloom.adapters.dht.health import FIRST_REST, LONGEST_REST, MEMORY, MIN_HEDGE, MIN_TIMEOUT, Health

PEER, OTHER = Node(b"p" * 20, "127.0.0.1", 1), Node(b"o" * 20, "127.0.0.1", 2)


def health() -> Health:
    return Health(longest_timeout=1.0, longest_hedge=0.4)


def test_one_miss_is_no_death_but_two_in_a_row_are() -> None:
    peers = health()
    assert not peers.missed(PEER, now=0)
    peers.answered(PEER, 0.01)
    assert not peers.missed(PEER, now=1)
    assert peers.missed(PEER, now=2)


def test_who_misses_rests_longer_every_time_up_to_a_limit() -> None:
    peers, now = health(), 0.0
    for _ in range(20):
        peers.missed(PEER, now)
    assert peers.resting(PEER, now + LONGEST_REST - 1)
    assert not peers.resting(PEER, now + LONGEST_REST)
    assert not peers.resting(OTHER, now)


def test_an_answer_ends_the_rest() -> None:
    peers = health()
    peers.missed(PEER, now=0)
    assert peers.resting(PEER, FIRST_REST / 2)
    peers.answered(PEER, 0.01)
    assert not peers.resting(PEER, FIRST_REST / 2)


def test_nothing_known_means_the_longest_patience() -> None:
    assert health().timeout(PEER) == 1.0
    assert health().hedge() == 0.4


def test_patience_adapts_to_the_peer_and_else_to_the_usual_within_bounds() -> None:
    peers = health()
    for _ in range(9):
        peers.answered(OTHER, 0.001)
    assert peers.timeout(OTHER) == MIN_TIMEOUT
    assert peers.timeout(None) == MIN_TIMEOUT
    assert peers.hedge() == MIN_HEDGE
    peers.answered(PEER, 0.2)
    assert 0.7 < peers.timeout(PEER) <= 1.0
    assert peers.timeout(None) == MIN_TIMEOUT


def test_the_memory_is_bounded() -> None:
    peers = health()
    for number in range(MEMORY + 10):
        peers.missed(numbered(number), now=0)
    assert not peers.resting(numbered(0), 0)
    assert peers.resting(numbered(MEMORY + 9), 0)


def numbered(number: int) -> Node:
    return Node(number.to_bytes(20, "big"), "127.0.0.1", 1)


def test_who_names_a_wrong_address_for_a_peer_does_not_get_it_rested_at_the_right_one() -> None:
    peers = health()
    for wrong in (Node(PEER.id, "127.0.0.2", 1), Node(PEER.id, "127.0.0.1", 9)):
        peers.missed(wrong, now=0)
        peers.missed(wrong, now=0)
        assert peers.resting(wrong, 0)
    assert not peers.resting(PEER, 0)


def test_whoever_names_only_silent_nodes_invents_them_until_one_answers() -> None:
    health = Health(1.0, 0.4)
    for _ in range(4):
        assert not health.invents(b"liar")
        health.named(b"liar", answered=False)
    assert health.invents(b"liar")
    assert not health.invents(b"other")
    health.named(b"liar", answered=True)
    assert not health.invents(b"liar")
