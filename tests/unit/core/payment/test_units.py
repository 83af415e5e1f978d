"""Amounts as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.payment import units
from lloom.core.payment.voucher import MAX_AMOUNT


@pytest.mark.parametrize(
    ("text", "decimals", "amount"),
    [("0.05", 18, 5 * 10**16), ("3", 6, 3_000_000), (".5", 1, 5), (" 1.50 ", 1, 15), ("7", 0, 7), ("1.000000", 2, 100)],
)
def test_an_amount_is_read_exactly(text: str, decimals: int, amount: int) -> None:
    assert units.parse(text, decimals) == amount


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no amount"),
        ("-1", "is no amount"),
        ("1e3", "is no amount"),
        ("1,5", "is no amount"),
        ("0x10", "is no amount"),
        ("٣", "is no amount"),
        ("1.", "is no amount"),
        ("0", "is nothing"),
        ("0.0000001", "more than 6 decimals"),
        ("9" * 39, "more than there can be"),
        ("9" * 5000, "is no amount"),
    ],
)
def test_what_is_no_amount_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        units.parse(text, 6)


@given(st.integers(1, MAX_AMOUNT), st.integers(0, 36))
def test_what_is_shown_is_read_back(amount: int, decimals: int) -> None:
    assert units.parse(units.show(amount, decimals), decimals) == amount


def test_little_and_nothing_and_less_are_shown_too() -> None:
    assert [units.show(each, 3) for each in (0, 1, 1000, 1500, -1500)] == ["0", "0.001", "1", "1.5", "-1.5"]
