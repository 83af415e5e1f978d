"""Numbers and totals of a lane's receipts, in any order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lloom.core.payment.numbering import FAR, MAX_BEYOND, MAX_REMEMBERED, TWICE, WRONG_TOTAL, Numbering

COSTS = st.lists(st.integers(0, 1 << 100), min_size=1, max_size=30)


def receipts(costs: list[int]) -> list[tuple[bytes, int, int, int]]:
    found, charged = [], 0
    for seq, cost in enumerate(costs, 1):
        charged += cost
        found.append((b"%d" % seq, seq, cost, charged))
    return found


@given(COSTS, st.data())
def test_an_honest_lane_adds_up_in_any_order_and_however_often_it_comes(costs: list[int], data: st.DataObject) -> None:
    numbering, sent = Numbering(0, 0), receipts(costs)
    for each in data.draw(st.permutations([*sent, *sent[: len(sent) // 2]])):
        assert numbering.note(*each) is None
    assert (numbering.seq, numbering.charged, numbering.gap) == (len(costs), sum(costs), False)


@given(COSTS, st.data())
def test_one_false_total_is_noticed_wherever_it_stands(costs: list[int], data: st.DataObject) -> None:
    sent = receipts([*costs, 1])
    at = data.draw(st.integers(0, len(costs) - 1))
    name, seq, cost, charged = sent[at]
    sent[at] = (name, seq, cost, charged + data.draw(st.integers(1, 1 << 100)))
    numbering = Numbering(0, 0)
    problems = [numbering.note(*each) for each in data.draw(st.permutations(sent))]
    assert WRONG_TOTAL in problems


def test_two_receipts_with_one_number_are_noticed_before_and_behind_a_gap() -> None:
    numbering = Numbering(0, 0)
    assert numbering.note(b"a", 1, 5, 5) is None
    assert numbering.note(b"b", 1, 5, 5) == TWICE
    assert numbering.note(b"c", 3, 5, 15) is None
    assert numbering.note(b"d", 3, 5, 15) == TWICE
    assert numbering.note(b"a", 1, 5, 5) is None


def test_what_came_before_is_not_judged_again() -> None:
    numbering = Numbering(7, 70)
    assert numbering.note(b"old", 7, 10, 999) is None
    assert numbering.note(b"new", 8, 10, 80) is None
    assert (numbering.seq, numbering.charged) == (8, 80)


def test_a_gap_stays_until_it_is_filled() -> None:
    numbering = Numbering(0, 0)
    numbering.note(b"b", 2, 5, 9)
    assert (numbering.gap, numbering.seq) == (True, 0)
    numbering.note(b"a", 1, 4, 4)
    assert (numbering.gap, numbering.seq, numbering.charged) == (False, 2, 9)


def test_memory_is_bounded() -> None:
    numbering = Numbering(0, 0)
    problems = [numbering.note(b"%d" % seq, seq, 0, 0) for seq in range(2, MAX_BEYOND + 3)]
    assert problems[-1] == FAR
    assert len(numbering._names) <= MAX_REMEMBERED
