"""When vouchers are redeemed: worth their gas, before too much is owed, when they are old, at once on bad news."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from lloom.core.billing.lane import Lane
from lloom.core.payment.fees import Prices
from lloom.core.payment.receivable import Means, Receivable
from lloom.core.payment.settlement import (
    BATCH_BYTES,
    BATCH_GAS,
    FIRST_GAS,
    LANE_BYTES,
    LANE_GAS,
    MAX_CLAIMS,
    MODEL_BYTES,
    MODEL_GAS,
    Due,
    Policy,
    batches,
    fitting,
)
from tests.money_support import accounting, chain

NOW = 1_800_000_000.0
PRICE = 10
"""Of a unit of gas."""
LONE = PRICE * (BATCH_GAS + LANE_GAS)
LIMITS = replace(accounting().settlement, gas_multiple=20, share=0.1, age_seconds=86_400)
POLICY = Policy(LIMITS, chain(settle_above=10**9), Prices(PRICE, 0))
THRESHOLD = 20 * LONE
RICH = 10 * THRESHOLD


def due(amount: int, number: int = 0, **what: Any) -> Due:
    state = Receivable(
        lane=Lane(what.pop("client", bytes(20)), bytes(20), number), vouched=1 << 100, charged=amount + 1, claimed=1
    )
    return Due(**{"state": state, "since": NOW, "available": RICH, **what})


def chosen(*dues: Due, policy: Policy = POLICY) -> list[list[int]]:
    return [[lane.number for lane in lanes] for lanes in batches(dues, policy, NOW)]


def test_it_waits_until_the_gas_is_a_small_part_of_it() -> None:
    assert chosen(due(THRESHOLD - 1)) == []
    assert chosen(due(THRESHOLD)) == [[0]]


def test_a_share_of_the_deposit_is_waited_for_if_it_is_more_up_to_a_bound() -> None:
    policy = Policy(LIMITS, chain(settle_above=3 * THRESHOLD), Prices(PRICE, 0))
    assert policy.threshold(20 * THRESHOLD) == 2 * THRESHOLD
    assert policy.threshold(200 * THRESHOLD) == 3 * THRESHOLD
    assert policy.threshold(0) == THRESHOLD


def test_gas_is_compared_by_the_rate_of_the_token() -> None:
    dear = Policy(LIMITS, chain(gas_rate=2_000_000), Prices(PRICE, 3))
    assert dear.price(100, 0) == 2 * POLICY.price(100, 0) == 2000
    assert dear.price(100, 7) == 2042
    assert Policy(LIMITS, chain(gas_rate=1), Prices(1, 1)).price(1, 1) == 1  # rounded up


def test_a_client_is_relied_on_for_two_thresholds() -> None:
    assert POLICY.means(RICH) == Means(RICH, 2 * POLICY.threshold(RICH))


def test_a_client_is_not_relied_on_for_gas_that_would_never_be_paid() -> None:
    """A server says what gas costs: one in league with a client could have it relied on for whatever it claims to have."""
    dear = Policy(LIMITS, chain(settle_above=10**9, max_fee=10 * PRICE), Prices(1 << 100, 0))
    assert dear.means(1 << 120).unconfirmed == 2 * max(10 * THRESHOLD, 10**9)


def test_what_is_old_is_redeemed_if_it_pays_for_its_gas() -> None:
    old = NOW - LIMITS.age_seconds
    assert chosen(due(LONE + 1, since=old)) == [[0]]
    assert chosen(due(LONE, since=old)) == []
    assert chosen(due(LONE + 1, since=old + 1)) == []
    assert chosen(due(LONE + 1, since=NOW + 1)) == [[0]]  # the clock was set back: nobody knows how old it is


def test_bad_news_does_not_wait_for_the_threshold_but_for_the_gas_of_the_lane() -> None:
    own = PRICE * LANE_GAS
    assert chosen(due(own + 1, urgent=True)) == [[0]]
    assert chosen(due(own, urgent=True)) == []


def test_the_lanes_of_one_client_count_together() -> None:
    half = THRESHOLD // 2
    assert chosen(due(half, 1), due(half, 2)) == [[1, 2]]
    assert chosen(due(half, 1), due(half, 2, client=b"x" * 20)) == []


def test_a_lane_that_is_not_worth_its_gas_does_not_come_along() -> None:
    assert chosen(due(THRESHOLD, 1), due(PRICE * LANE_GAS, 2)) == [[1]]
    first = replace(
        due(PRICE * (LANE_GAS + FIRST_GAS), 2),
        state=Receivable(lane=due(1, 2).lane, vouched=1 << 100, charged=1_470_000),
    )
    assert first.amount == PRICE * (LANE_GAS + FIRST_GAS)
    assert chosen(due(THRESHOLD, 1), first) == [[1]]
    many = due(PRICE * (LANE_GAS + 2 * MODEL_GAS), 2, models=3)
    assert chosen(due(THRESHOLD, 1), many) == [[1]]


def test_where_bytes_cost_something_they_have_to_be_worth_it_too() -> None:
    policy = Policy(LIMITS, POLICY.chain, Prices(PRICE, 1000))
    lone = LONE + 1000 * (BATCH_BYTES + LANE_BYTES)
    assert policy.threshold(0) == 20 * lone
    assert chosen(due(20 * lone - 1), policy=policy) == []
    assert chosen(due(20 * lone), policy=policy) == [[0]]
    old = NOW - LIMITS.age_seconds
    assert chosen(due(lone, since=old), policy=policy) == []
    assert chosen(due(lone + 1, since=old), policy=policy) == [[0]]
    own = PRICE * (LANE_GAS + 2 * MODEL_GAS) + 1000 * (LANE_BYTES + 2 * MODEL_BYTES)
    assert chosen(due(own, urgent=True, models=3), policy=policy) == []
    assert chosen(due(own + 1, urgent=True, models=3), policy=policy) == [[0]]
    both = LONE + PRICE * LANE_GAS + 1000 * (BATCH_BYTES + 2 * LANE_BYTES)
    halves = (due(both // 2, 1, since=old), due(both - both // 2, 2, since=old))
    assert chosen(*halves, policy=policy) == []
    assert chosen(halves[0], due(both - both // 2 + 1, 2, since=old), policy=policy) == [[2, 1]]


def test_what_was_charged_is_due_as_far_as_it_is_promised() -> None:
    for vouched, charged, claimed, amount in ((100, 70, 0, 70), (60, 70, 0, 60), (100, 70, 70, 0), (100, 70, 80, 0)):
        state = Receivable(lane=due(1).lane, vouched=vouched, charged=charged, claimed=claimed)
        assert replace(due(1), state=state).amount == amount


def test_nothing_is_claimed_that_the_client_does_not_have() -> None:
    assert due(100, available=30).amount == 30
    assert chosen(due(THRESHOLD, available=0)) == []
    reserved = due(THRESHOLD, available=0)
    assert chosen(replace(reserved, state=replace(reserved.state, reserved=THRESHOLD))) == [[0]]


def test_settlements_are_bounded_and_the_urgent_and_large_ones_go_first() -> None:
    dues = [due(THRESHOLD + n, n, client=n.to_bytes(20, "big"), urgent=n == 3) for n in range(MAX_CLAIMS + 1)]
    first, second = chosen(*dues)
    assert first[:2] == [3, MAX_CLAIMS]
    assert (len(first), second) == (MAX_CLAIMS, [0])


def test_a_settlement_fits_into_a_transaction_however_many_models_its_vouchers_name() -> None:
    """A lane with 16 models that are new to the contract takes 910,000 gas (measured): no chain takes a hundred of those."""
    dues = [due(RICH, number, models=16) for number in range(64)]
    found = chosen(*dues)
    assert sorted(number for lanes in found for number in lanes) == list(range(64))
    assert all(910_000 * len(lanes) * 6 // 5 < 1 << 24 for lanes in found), "EIP-7825, with the margin of estimates"
    assert fitting([("a", 1 << 30), ("b", 1), ("c", 1)]) == [["a"], ["b", "c"]]
