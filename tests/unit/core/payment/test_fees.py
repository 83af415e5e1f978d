"""Fees: enough for the next blocks, raised when they were not, never beyond the cap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lloom.core.payment.fees import MIN_TIP, Fees, cap_of, data_fee, estimate, price, replacement, within

GAS = st.integers(0, 10**13)
FEES = st.builds(lambda tip, more: Fees(tip + more, tip), st.integers(1, 10**12), st.integers(0, 10**13))


@given(GAS, st.lists(GAS, max_size=20))
def test_an_estimate_outlasts_six_full_blocks_and_tips_as_others_do(base_fee: int, tips: list[int]) -> None:
    fees = estimate(base_fee, tips)
    assert fees.most >= int(base_fee * 1.125**5) + fees.tip
    assert fees.tip >= MIN_TIP
    if tips:
        assert fees.tip <= max(*tips, MIN_TIP)


@given(FEES, FEES, GAS)
def test_a_replacement_raises_both_fees_by_an_eighth_and_keeps_to_the_cap(before: Fees, fresh: Fees, cap: int) -> None:
    found = replacement(before, fresh, cap)
    if found is None:
        assert before.most * 9 > cap * 8 or before.most == cap
        return
    assert found.most <= cap
    assert found.most * 8 >= before.most * 9
    assert found.tip * 8 >= before.tip * 9 or found.tip == found.most
    assert found.tip <= found.most
    assert found.most >= min(fresh.most, cap)


def test_fees_of_nothing_rise_too() -> None:
    assert replacement(Fees(0, 0), Fees(0, 0), 10) == Fees(1, 1)


@given(FEES, GAS, GAS)
def test_a_cap_cuts_fees_as_long_as_the_next_block_takes_them(fees: Fees, base_fee: int, cap: int) -> None:
    found = within(fees, base_fee, cap)
    if found is None:
        assert fees.most > cap
        assert cap <= base_fee
    else:
        assert found.most <= min(fees.most, cap) if fees.most > cap else found == fees
        assert 0 < found.tip <= found.most


@given(st.integers(0, 10**13), st.integers(0, 10**24), st.integers(1, 10**7))
def test_a_job_never_pays_more_for_gas_than_it_brings(max_fee: int, value: int, gas: int) -> None:
    cap = cap_of(max_fee, value, gas)
    assert cap <= max_fee
    assert cap * gas <= value


@given(st.none() | st.integers(0, 1 << 256), st.integers(0, 10**5), st.integers(0, 10**13))
def test_what_is_said_of_bytes_is_believed_up_to_a_bound_that_stands_for_silence_too(
    said: int | None, size: int, most: int
) -> None:
    fee = data_fee(said, size, most)
    assert 0 <= fee <= size * most
    assert fee == said or (fee == size * most and (said is None or said > fee))


def test_what_gas_costs_is_base_fee_and_tip_but_never_more_than_was_allowed() -> None:
    assert price(100, Fees(202, 2)) == 102
    assert price(300, Fees(202, 2)) == 202
