"""Everybody waits as long as it went over its rate, and nobody else does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lloom.core.throttle import Throttle


def test_within_its_rate_nobody_waits() -> None:
    throttle = Throttle(100)
    assert [throttle.take("a", 10, now / 10) for now in range(50)] == [0] * 50


def test_a_second_of_its_rate_goes_at_once_and_more_waits_for_its_time() -> None:
    throttle = Throttle(100)
    assert throttle.take("a", 100, 0) == 0
    assert throttle.take("a", 50, 0) == 0.5
    assert throttle.take("a", 50, 0) == 1
    assert throttle.take("b", 100, 0) == 0, "others do not wait for it"
    assert throttle.take("a", 50, 1.5) == 0, "the debt is paid"


def test_who_owes_nothing_is_forgotten() -> None:
    throttle = Throttle(100)
    for number in range(1000):
        throttle.take(number, 1, number)
    assert len(throttle) == 1


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 3)), min_size=1, max_size=50))
def test_over_any_time_no_more_passes_than_the_rate_and_one_burst(takes: list[tuple[int, float]]) -> None:
    """Who waits as it is told, and takes again only then, is held to its rate."""
    throttle, now, passed = Throttle(100), 0.0, 0
    for amount, pause in takes:
        wait = throttle.take("a", amount, now)
        now += wait
        passed += amount
        assert passed <= 100 * (now + 1) + 1e-6
        now += pause
