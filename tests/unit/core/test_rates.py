from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from lloom.core.allowance import Bucket
from lloom.core.rates import BURST, Limits, Rates, _bucket

MINUTE = 60.0


def bucket_of(limit: float) -> Bucket:
    found = _bucket(limit, 1, 0.0)
    assert found is not None
    return found


def used(bucket: Bucket, amounts: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """When each amount is used, of amounts that are asked for one after the other: (pause before it, amount)."""
    now, found = 0.0, []
    for pause, amount in amounts:
        now += pause
        wait = bucket.wait(amount, now)
        bucket.take(amount, now)
        found.append((now + wait, amount))
    return found


@settings(deadline=None)
@example(600, [(0, 0.1)] * 150)
@given(
    st.floats(1, 10_000),
    st.lists(st.tuples(st.floats(0, 100), st.floats(0.001, 1)), min_size=1, max_size=60),
)
def test_no_minute_sees_more_than_it_may(limit: float, asked: list[tuple[float, float]]) -> None:
    # Amounts up to a full bucket; larger ones are known to leave a debt.
    whole = [(pause, share * limit * BURST) for pause, share in asked]
    times = used(bucket_of(limit), whole)
    for start, _ in times:
        seen = sum(amount for at, amount in times if start <= at < start + MINUTE)
        assert seen <= limit * (1 + 1e-6)


def test_a_burst_is_let_through_and_the_rest_comes_evenly() -> None:
    times = [at for at, _ in used(bucket_of(120), [(0, 1)] * 14)]
    assert times[:10] == [0] * 10
    gap = MINUTE / (120 * (1 - BURST))
    assert [round(at, 6) for at in times[10:]] == [round(gap * n, 6) for n in range(1, 5)]


def test_a_few_a_minute_are_spread_over_it() -> None:
    times = [at for at, _ in used(bucket_of(6), [(0, 1)] * 13)]
    assert all(sum(start <= at < start + MINUTE for at in times) <= 6 for start in times)
    assert times[-1] < 3 * MINUTE


def test_what_is_larger_than_a_bucket_goes_when_it_is_full_and_leaves_a_debt() -> None:
    bucket = bucket_of(1200)
    assert bucket.wait(1000, 0) == 0
    bucket.take(1000, 0)
    assert 40 < bucket.wait(1, 0) < 60


def test_an_estimate_is_settled_by_what_was_spent() -> None:
    rates = Rates(Limits(parallel=1, tokens=6000), 1, 0.0)
    rates.take(500, 0)
    full = rates.wait(500, 0)
    rates.take(100 - 500, 0, requests=0)
    settled = rates.wait(500, 0)
    rates.take(900 - 100, 0, requests=0)
    assert 0 < settled < full < rates.wait(500, 0)


def test_workers_divide_what_is_allowed() -> None:
    whole, half = (Rates(Limits(1, requests=60), share, 0.0) for share in (1, 2))
    for rates in (whole, half):
        for _ in range(10):
            rates.take(0, 0)
    assert abs(half.wait(0, 0) / whole.wait(0, 0) - 2.7) < 0.2  # it began with half a burst, too


def test_without_limits_nobody_waits() -> None:
    rates = Rates(Limits(parallel=1), 1, 0.0)
    rates.take(10**9, 0)
    assert (rates.wait(10**9, 0), rates.counts_tokens) == (0, False)
