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
        assert join(line, item) is None
    return line


def join(line: Line[str], item: str) -> str | None:
    """Everything is of a kind of its own."""
    return line.join(item[0], item, kind=item)


def test_callers_take_turns_and_each_one_keeps_its_order() -> None:
    assert served(filled(9, "a1", "a2", "a3", "b1", "c1", "b2")) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_the_order_that_is_shown_is_the_one_that_is_served() -> None:
    line = filled(9, "a1", "a2", "b1", "b2", "b3")
    shown = [item for _, item in line]
    assert served(line) == shown


def test_who_fills_the_line_makes_room_for_others_but_not_for_itself() -> None:
    line = filled(3, "a1", "a2", "a3")
    assert [join(line, item) for item in ("a4", "b1", "b2", "c1", "d1")] == ["a4", "a3", "b2", "a2", "d1"]
    assert served(line) == ["a1", "b1", "c1"]


def test_who_leaves_is_forgotten() -> None:
    line = filled(9, "a1", "a2", "b1")
    line.left("a", "a1")
    line.left("a", "a1")
    assert served(line) == ["a2", "b1"]


def test_the_first_of_each_kind_is_shown_in_the_order_in_which_they_would_be_served() -> None:
    line: Line[str] = Line(9)
    for item in ("a1x", "a2x", "a3y", "b1x", "b2z"):
        line.join(item[0], item, kind=item[2])
    assert [item for _, item in line] == ["a1x", "b2z", "a3y"]
    line.served("a", "a1x")
    assert [item for _, item in line] == ["b1x", "b2z", "a3y"]
    line.left("a", "a3y")
    line.left("b", "b2z")
    assert [item for _, item in line] == ["b1x"]


class Kind:
    """Counts how often it is looked at."""

    looks = 0

    def __hash__(self) -> int:
        self.looks += 1
        return 0


def test_the_first_of_each_kind_is_found_without_a_look_at_all_who_wait() -> None:
    line: Line[int] = Line(1000)
    common, rare = Kind(), Kind()
    line.join("a", 0, rare)
    for number in range(1, 1000):
        line.join(str(number % 7), number, common)
    line.left("a", 0)
    common.looks = 0
    assert len(list(line)) == 1
    assert common.looks < 10


@given(st.integers(0, 8), st.lists(st.sampled_from("abcd"), max_size=40))
def test_no_line_is_longer_than_its_places_and_nobody_is_lost(places: int, callers: list[str]) -> None:
    line: Line[str] = Line(places)
    items = [f"{caller}{number}" for number, caller in enumerate(callers)]
    out = [join(line, item) for item in items]
    assert len(line) <= places
    assert sorted(served(line) + [each for each in out if each]) == sorted(items)
