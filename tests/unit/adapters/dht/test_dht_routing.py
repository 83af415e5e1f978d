"""The routing table finds exactly the nearest, and keeps to its buckets."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from kademlia.node import Node

from lloom.adapters.dht.routing import Table

K = 4
SELF = Node(bytes(20))

ids = st.lists(st.binary(min_size=20, max_size=20).filter(any), min_size=1, max_size=60, unique=True)


class FakeProtocol:
    """Notes what the table tells its protocol."""

    def __init__(self) -> None:
        self.emptied = asyncio.Event()
        self.doubted: list[Node] = []

    def doubt(self, node: Node) -> None:
        self.doubted.append(node)


def table(node_ids: list[bytes]) -> tuple[Table, FakeProtocol]:
    protocol = FakeProtocol()
    made = Table(protocol, K, SELF, 2)
    for port, node_id in enumerate(node_ids, 1):
        made.add_contact(Node(node_id, "127.0.0.1", port))
    return made, protocol


@given(ids, st.binary(min_size=20, max_size=20))
def test_neighbours_are_the_nearest_of_all_contacts(node_ids: list[bytes], key: bytes) -> None:
    made, _ = table(node_ids)
    target = Node(key)
    nearest = sorted((n for n in made if n.id != key), key=target.distance_to)[:K]
    assert [n.id for n in made.find_neighbors(target)] == [n.id for n in nearest]


@given(ids)
def test_every_contact_is_found_by_its_id_and_no_bucket_overflows(node_ids: list[bytes]) -> None:
    made, _ = table(node_ids)
    for node in made:
        assert made.get(node.id) is node
        assert node.id in made
    assert all(len(bucket) <= K for bucket in made.buckets)
    assert len(made) == len(list(made)) <= len(node_ids)
    assert len(made) >= min(K, len(node_ids))


def test_those_nearest_to_ourselves_always_find_room() -> None:
    far = [bytes([255, number]) + bytes(18) for number in range(30)]
    near = [bytes(19) + bytes([number]) for number in range(1, K + 1)]
    made, _ = table(far + near)
    assert {n.id for n in made.find_neighbors(SELF)} == set(near)


def test_a_full_bucket_doubts_its_oldest_and_the_newcomer_waits() -> None:
    # Exactly five bits in common with each other, none with us: such a bucket is not split.
    same = [bytes([0b10001000 | (number % 2) << 2, number]) + bytes(18) for number in range(12)]
    made, protocol = table(same)
    assert {n.id for n in made} == set(same[:K])
    assert [n.id for n in protocol.doubted] == [same[0]] * (len(same) - K)
    made.remove_contact(protocol.doubted[0])
    assert {n.id for n in made} == {*same[1:K], same[-1]}, "the freshest of those who waited takes the place"


def test_an_id_on_the_edge_of_a_bucket_is_found_and_can_be_removed() -> None:
    edge = bytes([128]) + bytes(19)
    made, _ = table([edge, *(bytes([number]) * 20 for number in range(1, 20))])
    assert edge in made
    made.remove_contact(Node(edge))
    assert edge not in {n.id for n in made}


def test_the_asker_itself_is_not_told_about() -> None:
    made, _ = table([bytes([number]) * 20 for number in (1, 2, 3)])
    asker = Node(bytes(20), "127.0.0.1", 2)
    assert [n.port for n in made.find_neighbors(SELF, exclude=asker)] == [1, 3]


def test_a_contact_that_moved_is_known_by_its_new_address() -> None:
    made, _ = table([b"\1" * 20])
    made.add_contact(Node(b"\1" * 20, "127.0.0.1", 77))
    assert [n.port for n in made] == [77]


def test_the_loss_of_the_last_contact_is_told_and_of_nobody_is_not() -> None:
    made, protocol = table([b"\1" * 20, b"\2" * 20])
    made.remove_contact(Node(b"\1" * 20))
    assert not protocol.emptied.is_set()
    made.remove_contact(Node(b"\2" * 20))
    assert protocol.emptied.is_set()
    protocol.emptied.clear()
    made.remove_contact(Node(b"\2" * 20))
    assert not protocol.emptied.is_set()


def test_one_subnet_has_two_contacts_in_a_bucket_and_others_find_room() -> None:
    made = Table(FakeProtocol(), K, SELF, 2)
    for number in range(1, 200):
        made.add_contact(Node(bytes([200, number]) + bytes(18), f"203.0.113.{number}", 9000))
    assert sum(node.ip.startswith("203.0.113.") for node in made) == 2
    honest = Node(bytes([200, 250]) + bytes(18), "198.51.100.1", 9000)
    made.add_contact(honest)
    assert honest.id in made


def test_a_known_contact_of_a_crowded_subnet_is_refreshed() -> None:
    made = Table(FakeProtocol(), K, SELF, 2)
    for number in (1, 2):
        made.add_contact(Node(bytes([200, number]) + bytes(18), f"203.0.113.{number}", 9000))
    made.add_contact(Node(bytes([200, 1]) + bytes(18), "203.0.113.1", 9001))
    assert made.get(bytes([200, 1]) + bytes(18)).port == 9001  # type: ignore[union-attr]
