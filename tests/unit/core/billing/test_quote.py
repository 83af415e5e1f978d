"""Whatever differs in terms makes another quote, and costs are rounded once."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

import msgspec
import pytest
from billing_support import CLIENT, MODEL, OFFER, REQUESTED, TERMS, changed
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.billing.quote import cost, quote_hash, quote_of
from lloom.core.offer import Offer, Payment

tokens = st.integers(0, 2**32 - 1)
prices = st.integers(0, 2**62)


@given(tokens, tokens, tokens, prices, prices, prices, prices)
def test_cost_is_rounded_up_once(a: int, b: int, c: int, pa: int, pb: int, pc: int, fee: int) -> None:
    quote = changed(TERMS, input_price=pa, cached_price=pb, output_price=pc, request_fee=fee)
    assert cost(quote, a, b, c) == fee + ceil(Fraction(a * pa + b * pb + c * pc, 1_000_000))


def test_the_smallest_price_of_one_token_costs_one_unit_and_no_tokens_cost_the_fee() -> None:
    quote = changed(TERMS, input_price=1, request_fee=5)
    assert cost(quote, 1, 0, 0) == 6
    assert cost(quote, 0, 0, 0) == 5
    assert cost(quote, 1_000_000, 0, 0) == 6
    assert cost(quote, 1_000_001, 0, 0) == 7


def test_both_sides_derive_the_same_quote_from_an_offer() -> None:
    received = msgspec.msgpack.decode(msgspec.msgpack.encode(OFFER), type=Offer)
    model = received.model(MODEL.id)
    assert model is not None
    assert quote_hash(quote_of(received, model)) == REQUESTED.quote_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "other"},
        {"context": 1},
        {"max_output": 1},
        {"encoding": "cl100k_base"},
        {"features": ("json",)},
        {"operations": ("embeddings",)},
        {"input_price": 1},
        {"output_price": 1},
    ],
)
def test_other_terms_make_another_quote(changes: dict[str, Any]) -> None:
    assert quote_hash(quote_of(OFFER, changed(MODEL, **changes))) != REQUESTED.quote_hash


@pytest.mark.parametrize("changes", [{"executor": CLIENT.address}, {"seq": 8}, {"expires": 5}])
def test_another_offer_makes_other_quotes(changes: dict[str, Any]) -> None:
    assert quote_hash(quote_of(changed(OFFER, **changes), MODEL)) != REQUESTED.quote_hash


def test_each_way_to_pay_makes_a_quote_of_its_own() -> None:
    """Even at the same price in the same token: else an executor could not tell on which chain it is paid."""
    ways = (None, Payment(1, bytes(20), bytes(20), 1_000_000), Payment(2, bytes(20), bytes(20), 1_000_000))
    other_contract = Payment(1, bytes(19) + b"\1", bytes(20), 1_000_000)
    hashes = {quote_hash(quote_of(OFFER, MODEL, way)) for way in (*ways, other_contract)}
    assert len(hashes) == 4
