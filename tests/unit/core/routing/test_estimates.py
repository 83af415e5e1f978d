from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.routing.estimates import Latest, Ratio, faded, wilson
from lloom.core.routing.pace import Pace

SOME = st.floats(0, 1e6)
DEVIATIONS = st.floats(0, 3)
TINY = 1e-9


def test_one_good_answer_is_worth_less_than_a_hundred_with_a_bad_one() -> None:
    assert wilson(1, 0, 1) == pytest.approx(0.5)
    assert wilson(100, 0, 1) == pytest.approx(100 / 101)
    assert wilson(1, 0, 1) < wilson(99, 1, 1) < wilson(100, 0, 1)
    assert wilson(0, 0, 1) == 0


@given(SOME, SOME, DEVIATIONS)
def test_the_bound_is_below_what_was_seen_and_more_of_the_same_narrows_it(good: float, bad: float, sure: float) -> None:
    bound = wilson(good, bad, sure)
    assert 0 <= bound <= (good / (good + bad) if good + bad else 0) + TINY
    assert bound <= wilson(10 * good, 10 * bad, sure) + TINY
    assert wilson(good, bad, sure + 1) <= bound + TINY


@given(SOME, SOME, st.floats(0.1, 10), DEVIATIONS)
def test_a_good_answer_never_harms_and_a_bad_one_never_helps(good: float, bad: float, more: float, sure: float) -> None:
    assert wilson(good + more, bad, sure) >= wilson(good, bad, sure) - TINY
    assert wilson(good, bad + more, sure) <= wilson(good, bad, sure) + TINY


def test_weights_halve() -> None:
    assert [faded(age, 10.0) for age in (-1.0, 0.0, 10.0, 20.0)] == [1.0, 1.0, 0.5, 0.25]


def test_a_ratio_forgets_how_much_but_not_how_much_of_it() -> None:
    ratio = Ratio()
    assert ratio.value is None
    ratio.add(3.0, 4.0)
    ratio.fade(0.5)
    assert (ratio.above, ratio.value) == (1.5, 0.75)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 1.0]))
def test_a_quantile_is_one_of_the_latest_values_that_enough_do_not_exceed(values: list[float], share: float) -> None:
    latest = Latest()
    for number, value in enumerate(values):
        latest.add(value, float(number))
    kept = values[-64:]
    found = latest.quantile(share, 0.0, 1)
    assert found in kept
    assert sum(value <= found for value in kept) >= share * len(kept)


def test_old_and_few_values_tell_nothing() -> None:
    latest = Latest()
    for number in range(20):
        latest.add(1.0, float(number))
    assert latest.quantile(0.95, 0.0, 20) == 1.0
    assert latest.quantile(0.95, 1.0, 20) is None


def test_the_pace_is_the_executors_and_not_the_readers() -> None:
    fast = Pace()
    fast.began(10.0)
    fast.waited(10.0, 11.0)
    fast.waited(11.0, 12.0)
    assert fast.seconds == 2.0
    slow = Pace()
    slow.began(10.0)
    slow.waited(13.0, 13.1)  # three seconds went by before anybody wanted more
    assert slow.seconds == 0.0
