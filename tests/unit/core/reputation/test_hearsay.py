"""No validator alone moves anybody where there are several, and all together not far."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lloom.core.reputation.hearsay import REACH, Word, heard
from lloom.core.reputation.score import UNKNOWN

words = st.builds(Word, st.floats(0, 1), st.booleans())


@given(st.lists(words, max_size=8), st.integers(0, 8))
def test_what_is_said_has_bounds(said: list[Word], validators: int) -> None:
    assert UNKNOWN - REACH <= heard(said, validators) <= UNKNOWN + REACH


@given(st.lists(st.builds(Word, st.floats(0, 1), st.just(True)), min_size=2, max_size=7), st.floats(0, 1))
def test_one_against_all_can_only_weaken_them(agreed: list[Word], weight: float) -> None:
    lone = heard([*agreed, Word(weight, good=False)], len(agreed) + 1)
    assert UNKNOWN <= lone <= heard(agreed, len(agreed) + 1)


def test_one_of_several_is_not_enough_and_the_only_one_is() -> None:
    assert heard([Word(1.0, good=True)], 3) == UNKNOWN
    assert heard([Word(1.0, good=True)], 1) == UNKNOWN + REACH
    assert heard([Word(0.5, good=False)] * 2, 3) == UNKNOWN - REACH


def test_who_misled_before_weighs_less() -> None:
    believed, doubted = [Word(0.9, good=True)] * 2, [Word(0.2, good=False)] * 2
    assert UNKNOWN < heard([*believed, *doubted], 4) < UNKNOWN + REACH
