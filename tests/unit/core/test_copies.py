"""Answers that are kept: how many bytes, for how long, and which make room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lloom.core.copies import BESIDES, Copies, Copy

LARGEST = 1000
LIMIT = 8 * (LARGEST + BESIDES)


def kept(copies: Copies[str], name: bytes, data: bytes, now: float) -> Copy:
    copy = copies.begin()
    copies.add(copy, data)
    copies.keep(name, copy, name.decode(), now)
    return copy


def test_an_answer_is_found_whole_by_its_name_until_its_time_is_over() -> None:
    copies: Copies[str] = Copies(LIMIT, 10)
    copy = copies.begin()
    copies.add(copy, b"one ")
    assert copies.find(b"a") is None
    copies.add(copy, b"two")
    copies.keep(b"a", copy, "more", 100)
    assert copies.find(b"a") == (copy, "more")
    assert copy.data == b"one two"
    assert copies.expire(109) == 110
    assert copies.find(b"a") is not None
    assert copies.expire(110) is None
    assert (copies.find(b"a"), copies.size, copy.data, copy.complete) == (None, 0, b"", False)


def test_an_answer_over_an_eighth_is_not_kept() -> None:
    copies: Copies[str] = Copies(LIMIT, 10)
    copy = copies.begin()
    copies.add(copy, bytes(LARGEST))
    assert copy.complete
    copies.add(copy, b"x")
    copies.add(copy, b"y")
    copies.keep(b"a", copy, "", 0)
    assert (copy.complete, copy.data, copies.size, copies.find(b"a")) == (False, b"", 0, None)


def test_the_oldest_that_are_over_make_room() -> None:
    copies: Copies[str] = Copies(LIMIT, 10)
    for number in range(9):
        kept(copies, b"%d" % number, bytes(LARGEST), number)
    assert copies.find(b"0") is None
    assert all(copies.find(b"%d" % number) for number in range(1, 9))
    assert copies.size == LIMIT


def test_answers_that_are_being_made_make_no_room_for_another_one() -> None:
    copies: Copies[str] = Copies(LIMIT, 10)
    made = [copies.begin() for _ in range(8)]
    for copy in made:
        copies.add(copy, bytes(LARGEST))
    another = copies.begin()
    assert not another.complete
    assert all(copy.complete for copy in made)
    copies.drop(made[0])
    assert copies.begin().complete


def test_what_is_kept_under_a_name_is_forgotten_by_it() -> None:
    copies: Copies[str] = Copies(LIMIT, 10)
    first, second = kept(copies, b"a", b"secret", 0), kept(copies, b"b", b"more", 1)
    for _ in range(2):
        copies.forget(b"a")
        assert (copies.find(b"a"), first.data, copies.size) == (None, b"", BESIDES + len(b"more"))
    assert copies.expire(10) == 11
    assert second.complete


def test_all_are_forgotten_at_the_end() -> None:
    copies: Copies[str] = Copies(LIMIT, 10)
    copy = kept(copies, b"a", b"secret", 0)
    copies.clear()
    assert (len(copies), copies.size, copy.data) == (0, 0, b"")


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(["begin", "add", "drop", "keep", "expire"]), st.integers(0, 900))
    )
)
def test_never_more_bytes_are_kept_than_allowed(steps: list[tuple[int, str, int]]) -> None:
    copies: Copies[str] = Copies(4 * LIMIT // 8, 10)
    made: dict[int, Copy] = {}
    over: list[Copy] = []
    for now, (which, step, size) in enumerate(steps):
        copy = made.get(which)
        if step == "begin" and copy is None:
            made[which] = copies.begin()
        elif step == "add" and copy is not None:
            copies.add(copy, bytes(size))
        elif step == "drop" and copy is not None:
            copies.drop(made.pop(which))
        elif step == "keep" and copy is not None:
            over.append(made.pop(which))
            copies.keep(b"%d" % now, copy, "", now)
        elif step == "expire":
            copies.expire(now)
        whole = [each for each in (*made.values(), *over) if each.complete]
        assert copies.size == sum(len(each.data) + BESIDES for each in whole) <= 4 * LIMIT // 8
