from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lloom.core.routing.line import Line


def served(line: Line[str]) -> list[str]:
    """All in the order in which they have their turn."""
    order = []
    while len(line):
        caller, item = next(iter(line))
        line.served(caller, item)
        order.append(item)
    return order


def filled(places: int, *items: str) -> Line[str]:
    line: Line[str] = Line(places)
    for item in items:
        assert line.join(item[0], item) is None
    return line


def test_callers_take_turns_and_each_one_keeps_its_order() -> None:
    assert served(filled(9, "a1", "a2", "a3", "b1", "c1", "b2")) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_the_order_that_is_shown_is_the_one_that_is_served() -> None:
    line = filled(9, "a1", "a2", "b1", "b2", "b3")
    shown = [item for _, item in line]
    assert served(line) == shown


def test_who_fills_the_line_makes_room_for_others_but_not_for_itself() -> None:
    line = filled(3, "a1", "a2", "a3")
    assert line.join("a", "a4") == "a4"
    assert line.join("b", "b1") == "a3"
    assert line.join("b", "b2") == "b2"
    assert line.join("c", "c1") == "a2"
    assert line.join("d", "d1") == "d1"
    assert served(line) == ["a1", "b1", "c1"]


def test_who_leaves_is_forgotten() -> None:
    line = filled(9, "a1", "a2", "b1")
    line.left("a", "a1")
    line.left("a", "a1")
    assert served(line) == ["a2", "b1"]


@given(st.integers(0, 8), st.lists(st.sampled_from("abcd"), max_size=40))
def test_no_line_is_longer_than_its_places_and_nobody_is_lost(places: int, callers: list[str]) -> None:
    line: Line[str] = Line(places)
    items = [f"{caller}{number}" for number, caller in enumerate(callers)]
    out = [line.join(item[0], item) for item in items]
    assert len(line) <= places
    assert sorted(served(line) + [each for each in out if each]) == sorted(items)
