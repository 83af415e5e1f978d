from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.allowance import DAY, MONTH, Allowance, Bucket, Budget
from lloom.core.errors import CallerFault, LimitReached
from lloom.core.settings import GatewayKey

NOON = 20_000 * DAY + DAY / 2


def allowance(spent: dict[int, int] | None = None, **terms: Any) -> Allowance:
    return Allowance("alice", GatewayKey(sha256="0" * 64, **terms), spent or {}, 0.0)


def refused(act: Callable[[], object]) -> LimitReached:
    with pytest.raises(LimitReached) as caught:
        act()
    assert caught.value.status == 429
    return caught.value


def test_a_key_without_limits_is_never_refused() -> None:
    free = allowance()
    for _ in range(1000):
        free.enter(0.0)
        free.reserve("any/model", 1 << 40, 0.0, NOON)
    assert free.headers(0.0) == []


def test_requests_of_a_minute_may_come_at_once_and_then_as_they_refill() -> None:
    key = allowance(requests_per_minute=6)
    for _ in range(6):
        key.enter(0.0)
    error = refused(lambda: key.enter(0.0))
    assert (error.code, error.retry_after) == ("rate_limit_exceeded", 10.0)
    refused(lambda: key.enter(9.9))
    key.enter(10.0)


def test_places_are_free_again_when_requests_are_over() -> None:
    key = allowance(concurrent=2)
    key.enter(0.0)
    key.enter(0.0)
    refused(lambda: key.enter(1e6))
    key.leave()
    key.enter(0.0)


def test_a_request_that_finds_no_place_takes_none_of_the_rate() -> None:
    key = allowance(concurrent=1, requests_per_minute=2)
    key.enter(0.0)
    refused(lambda: key.enter(0.0))
    key.leave()
    key.enter(0.0)


def test_tokens_are_set_aside_before_and_settled_after() -> None:
    key = allowance(tokens_per_minute=600)
    key.reserve("m", 600, 0.0, NOON)
    assert refused(lambda: key.reserve("m", 100, 0.0, NOON)).retry_after == 10.0
    key.settle(600, 500, 0.0, NOON)
    key.reserve("m", 100, 0.0, NOON)


def test_more_than_was_set_aside_is_a_debt() -> None:
    key = allowance(tokens_per_minute=600)
    key.reserve("m", 10, 0.0, NOON)
    key.settle(10, 1800, 0.0, NOON)
    assert refused(lambda: key.reserve("m", 1, 0.0, NOON)).retry_after == pytest.approx(120.1)


def test_a_request_larger_than_the_rate_waits_for_all_of_it_and_no_longer() -> None:
    key = allowance(tokens_per_minute=600)
    key.reserve("m", 5000, 0.0, NOON)
    assert refused(lambda: key.reserve("m", 1, 0.0, NOON)).retry_after == pytest.approx(440.1)


def test_headers_tell_limit_rest_and_reset_as_openai_does() -> None:
    key = allowance(requests_per_minute=60, tokens_per_minute=600)
    key.enter(0.0)
    key.reserve("m", 150, 0.0, NOON)
    assert dict(key.headers(0.5)) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "0.500s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "455",
        "x-ratelimit-reset-tokens": "14.500s",
    }


@pytest.mark.parametrize("wanted", [100, 5000])
def test_a_budget_of_a_day_is_there_again_at_midnight(wanted: int) -> None:
    key = allowance({20_000: 950}, tokens_per_day=1000)
    error = refused(lambda: key.reserve("m", wanted, 0.0, NOON))
    assert (error.code, error.retry_after) == ("insufficient_quota", DAY / 2)
    assert f"takes about {wanted}" in str(error)
    key.reserve("m", 50, 0.0, NOON)
    refused(lambda: key.reserve("m", 1, 0.0, NOON))
    key.settle(50, 0, 0.0, NOON)
    key.reserve("m", wanted, 0.0, NOON + DAY / 2)


def test_a_budget_of_a_month_is_freed_by_the_day_that_leaves_it() -> None:
    key = allowance({20_000 - 29: 600, 20_000 - 10: 300}, tokens_per_month=1000)
    key.reserve("m", 100, 0.0, NOON)
    key.settle(100, 100, 0.0, NOON)
    assert refused(lambda: key.reserve("m", 100, 0.0, NOON)).retry_after == DAY / 2
    assert refused(lambda: key.reserve("m", 700, 0.0, NOON)).retry_after == 19.5 * DAY


def test_what_only_others_have_set_aside_is_waited_for_a_moment_and_not_for_a_day() -> None:
    key = allowance({20_000: 500}, tokens_per_day=1000)
    key.reserve("m", 400, 0.0, NOON)
    assert refused(lambda: key.reserve("m", 101, 0.0, NOON)).retry_after == 1
    key.settle(400, 400, 0.0, NOON)
    assert refused(lambda: key.reserve("m", 101, 0.0, NOON)).retry_after == DAY / 2


def test_what_is_refused_reserves_nothing() -> None:
    key = allowance(tokens_per_minute=600, tokens_per_day=100)
    key.reserve("m", 60, 0.0, NOON)
    refused(lambda: key.reserve("m", 60, 0.0, NOON))
    assert dict(key.headers(0.0))["x-ratelimit-remaining-tokens"] == "540"
    key.reserve("m", 40, 0.0, NOON)


def test_settling_tells_what_the_day_came_to() -> None:
    key = allowance({20_000: 5})
    key.reserve("m", 10, 0.0, NOON)
    assert key.settle(10, 7, 0.0, NOON) == (20_000, 12)
    assert key.settle(0, 1, 0.0, NOON + DAY) == (20_001, 1)


def test_models_are_allowed_by_pattern_and_others_do_not_exist() -> None:
    key = allowance(models=("qwen*", "org/exact"))
    assert key.allows("qwen3-8b")
    assert key.allows("org/exact")
    with pytest.raises(CallerFault) as caught:
        key.reserve("org/exact-not", 1, 0.0, NOON)
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")


@given(
    st.integers(1, 10_000),
    st.lists(st.tuples(st.floats(0, 20), st.integers(0, 3000), st.integers(0, 3000)), max_size=40),
)
def test_no_more_is_used_than_the_rate_gives_and_the_last_request_overdraws(
    capacity: int, asked: list[tuple[float, int, int]]
) -> None:
    now, used, most = 0.0, 0, 0
    bucket = Bucket(capacity, capacity, now)
    for pause, reserve, real in asked:
        now += pause
        if bucket.wait(reserve, now):
            continue
        bucket.take(reserve, now)
        bucket.take(real - reserve, now)
        used, most = used + real, max(most, real)
        assert used <= capacity + now * capacity / 60 + most + 1e-6


@given(
    st.integers(1, 1000),
    st.sampled_from([1, MONTH]),
    st.dictionaries(st.integers(19_960, 20_000), st.integers(0, 500)),
    st.integers(0, 2000),
)
def test_after_the_wait_that_a_budget_tells_there_is_room(
    limit: int, days: int, spent: dict[int, int], tokens: int
) -> None:
    budget = Budget(spent)
    wait = budget.wait(tokens, limit, days, NOON)
    assert budget.wait(tokens, limit, days, NOON + wait) == 0
    if wait:
        assert budget.wait(tokens, limit, days, NOON + wait - 1) > 0
