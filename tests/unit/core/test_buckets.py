"""Token buckets: bursts end, pauses are paid back, nobody takes another's share, and memory is bounded."""

from __future__ import annotations

from lloom.core.buckets import Buckets


def test_of_a_flood_from_one_subnet_a_burst_is_taken_and_then_the_rate() -> None:
    buckets = Buckets(rate=10, total=1000)
    assert sum(buckets.take("a", 0.0) for _ in range(3000)) == 10
    assert sum(buckets.take("a", 0.5) for _ in range(3000)) == 5


def test_others_are_served_during_a_flood() -> None:
    buckets = Buckets(rate=10, total=1000)
    for _ in range(3000):
        buckets.take("a", 0.0)
    assert buckets.take("b", 0.0)


def test_a_pause_gives_no_more_than_a_burst() -> None:
    buckets = Buckets(rate=10, total=1000)
    buckets.take("a", 0.0)
    assert sum(buckets.take("a", 3600.0) for _ in range(100)) == 10


def test_all_subnets_together_have_a_limit() -> None:
    buckets = Buckets(rate=10, total=100)
    assert sum(buckets.take(f"s{number}", 0.0) for number in range(3000)) == 100
    assert sum(buckets.take(f"t{number}", 0.1) for number in range(3000)) == 10


def test_who_was_refused_for_the_others_sake_has_lost_nothing() -> None:
    buckets = Buckets(rate=2, total=3)
    for number in range(3):
        buckets.take(f"s{number}", 0.0)
    for _ in range(5):
        assert not buckets.take("late", 0.0)
    assert sum(buckets.take("late", 1.0) for _ in range(5)) == 2


def test_who_was_refused_takes_nothing_from_the_others() -> None:
    buckets = Buckets(rate=1, total=3)
    assert [buckets.take("a", 0.0) for _ in range(5)] == [True, False, False, False, False]
    assert buckets.take("b", 0.0)
    assert buckets.take("c", 0.0)


def test_a_flood_from_everywhere_fills_no_memory_and_forgives_no_debt() -> None:
    buckets, taken = Buckets(rate=10, total=100), 0
    for _ in range(10):
        buckets.take("debtor", 0.0)
    for step in range(2000):
        now = step / 4000
        buckets.take(f"spoofed {step}", now)
        taken += buckets.take("debtor", now)
        assert len(buckets) <= 200
    assert taken <= 5
    buckets.take("last", 10.0)
    assert len(buckets) == 1


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    buckets = Buckets(rate=1, total=10)
    assert buckets.take("a", 5.0)
    assert not buckets.take("a", 5.0)
    assert not buckets.take("a", 1.0)
    assert not buckets.take("a", 5.0)
