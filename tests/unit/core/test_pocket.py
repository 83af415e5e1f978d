from __future__ import annotations

from typing import Any

import pytest

from lloom.core.allowance import DAY
from lloom.core.errors import RetryElsewhere
from lloom.core.pocket import Coin, Lack, Pocket
from lloom.core.settings import GatewayKey

TODAY = 20_000
NOON = TODAY * DAY + DAY / 2
ETH, USDC = Coin("eip155:8453/0x0", "base"), Coin("eip155:10/0x1", "optimism")


def pocket(spent: dict[str, dict[int, int]] | None = None, **terms: Any) -> Pocket:
    return Pocket("alice", GatewayKey(sha256="0" * 64, **terms), spent or {})


def refused(key: Pocket, amount: int, coin: Coin = ETH, wall: float = NOON) -> RetryElsewhere:
    with pytest.raises(RetryElsewhere) as caught:
        key.hold(coin, amount, wall)
    assert (caught.value.status, caught.value.code) == (429, "insufficient_quota")
    return caught.value


def test_without_limits_anything_may_be_spent_and_is_counted() -> None:
    key = pocket()
    key.hold(ETH, 1 << 100, NOON)
    assert key.settle(ETH, 1 << 100, 1 << 99, NOON) == (TODAY, 1 << 99)


def test_what_is_held_is_not_there_and_what_was_not_spent_of_it_is_again() -> None:
    key = pocket(money_per_day=100)
    key.hold(ETH, 60, NOON)
    assert refused(key, 41).retry_after == 1, "the request that holds it may be over soon"
    key.hold(ETH, 40, NOON)
    assert key.settle(ETH, 60, 30, NOON) == (TODAY, 30)
    key.hold(ETH, 30, NOON)
    refused(key, 1)


def test_what_can_not_be_charged_any_more_is_free_before_the_bill_comes() -> None:
    key = pocket(money_per_day=100)
    key.hold(ETH, 100, NOON)
    key.lower(ETH, 70)
    key.hold(ETH, 70, NOON)
    refused(key, 1)


def test_a_day_that_is_spent_is_over_at_midnight() -> None:
    key = pocket({ETH.unit: {TODAY: 95, TODAY - 1: 1000}}, money_per_day=100)
    error = refused(key, 6)
    assert error.retry_after == DAY / 2
    assert all(part in str(error) for part in ("money_per_day", "100", "base", "may cost 6"))
    key.hold(ETH, 6, NOON + DAY / 2)


def test_thirty_days_are_freed_by_the_one_that_leaves_them() -> None:
    key = pocket({ETH.unit: {TODAY - 29: 60, TODAY: 40}}, money_per_day=100, money_per_month=100)
    error = refused(key, 60)
    assert error.retry_after == DAY / 2
    assert "money_per_month" in str(error)


def test_more_than_the_limit_is_never_let_in_and_no_time_helps() -> None:
    error = refused(pocket(money_per_day=100), 101)
    assert error.retry_after is None
    assert "limit the answer's tokens" in str(error)


def test_who_may_spend_nothing_gets_what_costs_nothing() -> None:
    key = pocket(money_per_day=0)
    key.hold(ETH, 0, NOON)
    refused(key, 1)


def test_what_is_lacking_is_told_without_holding_anything() -> None:
    key = pocket({ETH.unit: {TODAY: 95}}, money_per_day=100, money_per_month=1000)
    for _ in range(2):
        assert key.lack(ETH, 5, NOON) is None
        assert key.lack(ETH, 6, NOON) == Lack("money_per_day", 100, DAY / 2)
    assert key.lack(ETH, 1001, NOON) == Lack("money_per_day", 100, None)
    assert key.lack(USDC, 100, NOON) is None
    assert pocket().lack(ETH, 1 << 100, NOON) is None


def test_money_of_one_chain_is_none_of_another() -> None:
    key = pocket({ETH.unit: {TODAY: 100}}, money_per_day=100)
    key.hold(USDC, 100, NOON)
    refused(key, 1)
    assert "optimism" in str(refused(key, 1, USDC))
