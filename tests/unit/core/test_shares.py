"""Fair places: who has to go, and who never has to."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from lloom.core.identity import NodeId
from lloom.core.shares import Shares


def who(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


def nobody(_who: NodeId) -> bool:
    return False


def filled(limit: int, **subnets: int) -> Shares:
    """One place for each member; members of the first subnet count from 0, of the second from 100, and so on."""
    shares = Shares(limit)
    for number, (subnet, members) in enumerate(subnets.items()):
        for each in range(members):
            shares.add(who(100 * number + each), subnet, 1)
    return shares


def test_while_there_is_room_nobody_goes() -> None:
    assert filled(10, a=9).victims("b", 1, nobody) == []
    assert filled(10, a=9).lacks(1) == 0
    assert filled(10, a=9).lacks(3) == 2


def test_the_one_goes_that_was_silent_longest_where_most_are() -> None:
    shares = filled(10, a=3, b=7)
    assert shares.victims("c", 1, nobody) == [who(100)]
    assert shares.victims("c", 1, lambda each: each == who(100)) == [who(101)]


def test_nobody_goes_for_one_who_would_then_have_more() -> None:
    shares = filled(10, a=5, b=5)
    assert shares.victims("a", 1, nobody) is None
    assert shares.victims("c", 5, nobody) is None
    assert shares.victims("c", 4, nobody) is None, "one place of each, and four are missing"


def test_where_all_are_spared_nobody_goes() -> None:
    assert filled(4, a=4).victims("b", 1, lambda _: True) is None


def test_places_come_back() -> None:
    shares = filled(3, a=3)
    shares.remove(who(1), "a")
    assert shares.lacks(1) == 0
    shares.add(who(9), "b", 1)
    assert shares.lacks(1) == 1


newcomers = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 4)), max_size=60)


@given(newcomers)
@settings(deadline=None)
def test_there_are_never_too_many_and_no_subnet_loses_to_a_richer_one(coming: list[tuple[str, int]]) -> None:
    shares, here = Shares(12), dict[NodeId, tuple[str, int]]()
    for number, (subnet, places) in enumerate(coming):
        held = Counter[str]()
        for home, size in here.values():
            held[home] += size
        victims = shares.victims(subnet, places, nobody)
        if victims is None:
            continue
        for victim in victims:
            home, _ = here.pop(victim)
            assert held[home] > held[subnet] + places
            shares.remove(victim, home)
        shares.add(who(number), subnet, places)
        here[who(number)] = subnet, places
        assert sum(size for _, size in here.values()) <= 12
        assert shares.lacks(0) == 0
