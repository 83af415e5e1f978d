"""What speaks against an executor is counted; it is suspected only of what chance does not explain, and not for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.honesty import MEMORY, Conduct, Record

SEEN = st.none() | st.booleans()
EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans(), st.booleans(), SEEN, SEEN))


def record(differed: list[bool]) -> Record:
    """Of answers that were all compared."""
    made = Record()
    for number, wrong in enumerate(differed):
        made.answered(number, number, hurried=False, miscounted=False)
        made.judged(differed=wrong, hurried=False)
    return made


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_answers_condemn_nobody(count: int) -> None:
    assert record([True] * count).conduct.doubts() == ()


def test_who_disagrees_again_and_again_is_suspected_until_he_has_mended_his_ways() -> None:
    made = record([True] * 4)
    assert made.conduct.doubts() == ("answers as another model would",)
    for number in range(MEMORY):
        made.answered(number, number, hurried=False, miscounted=False)
        made.judged(differed=False, hurried=False)
    assert made.conduct.doubts() == ()


def test_who_disagrees_now_and_then_is_not_suspected() -> None:
    assert record([number % 3 == 0 for number in range(300)]).conduct.doubts() == ()


def test_the_same_words_to_other_questions_are_a_repetition_and_to_the_same_one_are_not() -> None:
    made = Record()
    for question in (1, 1, 2, 3, 3):
        made.answered(question, "said", hurried=False, miscounted=False)
    assert made.conduct == Conduct(answers=5, repeated=3)
    made.answered(4, None, hurried=False, miscounted=False)
    made.answered(5, None, hurried=False, miscounted=False)
    assert made.conduct.repeated == 3, "what is too short tells nothing"


@pytest.mark.parametrize("fault", ["hurried", "miscounted"])
def test_each_fault_is_told_by_itself(fault: str) -> None:
    made = Record()
    for number in range(5):
        made.answered(number, number, **{"hurried": False, "miscounted": False, fault: True})
    assert getattr(made.conduct, fault) == 5
    assert len(made.conduct.doubts()) == 1


@pytest.mark.parametrize("apart", [True, False])
def test_words_that_are_alike_hide_no_likelihoods_that_are_not_and_the_other_way_round(apart: bool) -> None:
    made = Record()
    for number in range(16):
        made.answered(number, number, hurried=False, miscounted=False)
        compared = None if apart and number % 4 else apart  # fewer questions ask for them
        made.judged(differed=not apart, hurried=False, apart=compared)
    assert made.conduct == (
        Conduct(answers=16, compared=4, differed=4) if apart else Conduct(answers=16, compared=16, differed=16)
    )
    assert made.conduct.doubts() == ("answers as another model would",)


def test_what_cannot_be_compared_is_not() -> None:
    made = Record()
    made.answered(1, 1, hurried=False, miscounted=False)
    made.judged(differed=None, hurried=True, apart=None)
    assert made.conduct == Conduct(answers=1)


def test_likelihoods_of_long_ago_fade_like_words() -> None:
    made = Record()
    for number in range(4 * MEMORY):
        made.answered(number, number, hurried=False, miscounted=False)
        made.judged(differed=False, hurried=False, apart=number < MEMORY)
    assert made.conduct.doubts() == ()
    assert made.conduct.differed < 12


@given(EVENTS)
def test_whatever_happens_the_counts_can_be_true(
    events: list[tuple[int, int, bool, bool, bool | None, bool | None]],
) -> None:
    made = Record()
    for question, answer, hurried, miscounted, differed, apart in events * 5:
        made.answered(question, answer, hurried=hurried, miscounted=miscounted)
        if differed is not None or apart is not None:
            made.judged(differed=differed, hurried=True, apart=apart)
            made.judged(differed=True, hurried=True, apart=True)
        assert made.conduct.possible
        assert made.conduct.answers <= MEMORY


@given(st.integers(0, MEMORY))
def test_every_other_answer_is_never_enough(half: int) -> None:
    assert Conduct(MEMORY, half, half // 2, half // 2, half // 2, half // 2).doubts() == ()
