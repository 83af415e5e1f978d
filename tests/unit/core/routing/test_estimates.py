"""How sure one may be of a share: the bound is below what was seen, and nears it with what is known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lloom.core.routing.estimates import wilson

TINY = 1e-12
COUNT = st.integers(0, 100)
DEVIATIONS = st.floats(0, 3)


@given(COUNT, COUNT, DEVIATIONS)
def test_the_bound_is_below_what_was_seen_and_grows_with_it(good: int, bad: int, deviations: float) -> None:
    bound = wilson(good, bad, deviations)
    assert 0 <= bound <= (good / (good + bad) if good + bad else 0) + TINY
    assert wilson(good + 1, bad, deviations) >= bound - TINY
    assert wilson(good, bad + 1, deviations) <= bound + TINY


@given(st.integers(1, 100), COUNT, DEVIATIONS)
def test_more_of_the_same_makes_surer_and_more_certainty_is_lower(good: int, bad: int, deviations: float) -> None:
    bound = wilson(good, bad, deviations)
    assert wilson(10 * good, 10 * bad, deviations) >= bound - TINY
    assert wilson(good, bad, deviations + 1) <= bound + TINY
