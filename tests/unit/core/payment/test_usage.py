"""Accounts of what was asked, served and paid."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lloom.core.payment.usage import Entry, day, differences, rows

ENTRIES = st.lists(
    st.builds(
        Entry,
        peer=st.sampled_from(["0xa", "0xb"]),
        model=st.sampled_from(["small", "large"]),
        day=st.sampled_from(["2026-01-01", "2026-01-02"]),
        chain=st.sampled_from(["base", "polygon"]),
        requests=st.integers(0, 5),
        input_tokens=st.integers(0, 1 << 40),
        output_tokens=st.integers(0, 1 << 40),
        cost=st.integers(0, 1 << 100),
        paid=st.integers(0, 1 << 100),
    )
)


def entry(**changes: Any) -> Entry:
    fields = {"peer": "0xa", "model": "small", "day": "2026-01-01", "chain": "base"}
    return Entry(**{**fields, **changes})


def test_a_peer_has_a_row_for_each_chain_for_their_money_cannot_be_added() -> None:
    found = rows([entry(cost=1), entry(cost=2, model="large"), entry(cost=4, chain="polygon")], "peer")
    assert [(row.key, row.chain, row.cost) for row in found] == [("0xa", "base", 3), ("0xa", "polygon", 4)]


@given(ENTRIES, st.sampled_from(["peer", "model", "day", "chain"]))
def test_however_it_is_cut_nothing_is_lost_or_counted_twice(entries: list[Entry], by: Any) -> None:
    for name in ("requests", "input_tokens", "output_tokens", "cost", "paid"):
        assert sum(getattr(row, name) for row in rows(entries, by)) == sum(getattr(each, name) for each in entries)


@given(ENTRIES)
def test_an_account_agrees_with_itself_in_whatever_order_it_is_read(entries: list[Entry]) -> None:
    assert differences(rows(entries, "peer"), rows(reversed(entries), "peer")) == []


def test_what_is_not_settled_yet_and_what_one_side_does_not_know_are_differences() -> None:
    ledger = rows([entry(requests=2, cost=8, paid=10)], "peer")
    chain = rows([entry(requests=2, paid=7), entry(peer="0xb", input_tokens=5)], "peer")
    found = differences(ledger, chain)
    assert [(each.key, each.what, each.ledger, each.on_chain) for each in found] == [
        ("0xa", "paid", 10, 7),
        ("0xb", "input_tokens", 0, 5),
    ]


def test_a_day_that_no_calendar_has_is_told_as_the_last_one() -> None:
    """Executors sign what they like as the end of an answer."""
    assert day(1_785_000_000) == "2026-07-25"
    assert day(((1 << 64) - 1) / 1000) == "9999-12-31"
