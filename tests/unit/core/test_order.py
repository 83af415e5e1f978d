"""What is ordered where somebody pays, and where nobody does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.api.embeddings import Embeddings
from lloom.core.billing.quote import cost
from lloom.core.billing.request import check_request
from lloom.core.eip712 import Domain
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity
from lloom.core.order import Client, Nonce, Order, Paying
from tests.unit.core.routing.test_selection import candidate, request

CLIENT = Client(Identity(bytes(31) + b"\x01"), Domain())
CHAIN = Domain(31337, b"\xc0" * 20)
DEAR = candidate(1, input_price=3 * 10**6, output_price=7 * 10**6)


def order(paying: Paying | None, max_tokens: int = 100, n: int = 1) -> Order:
    return CLIENT.order(request(max_tokens=max_tokens, n=n), DEAR, Nonce(bytes(32), bytes(16)), 100, paying)


def test_a_paid_order_names_its_chain_and_lane_and_is_signed_for_it() -> None:
    paid = order(Paying(CHAIN, 7, 20, 0))
    request = check_request(paid.call.request, paid.call.signature, CHAIN, 0).request
    assert (paid.call.chain, request.lane, request.max_input_tokens) == (31337, 7, 20)
    assert request.max_cost == 20 * 3 + 100 * 7


def test_no_prompt_is_longer_than_the_context() -> None:
    assert order(Paying(CHAIN, 7, 1 << 20, 0)).request.max_input_tokens == 2048


def test_where_nobody_pays_the_context_is_the_limit() -> None:
    free = order(None)
    request = check_request(free.call.request, free.call.signature, Domain(), 0).request
    assert (free.call.chain, request.lane, request.max_input_tokens) == (0, 0, 2048)
    assert free.call.voucher is None


def test_no_more_is_ordered_than_the_model_writes() -> None:
    assert order(None, max_tokens=1 << 20).request.max_output_tokens == DEAR.terms.max_output


def test_embeddings_are_ordered_by_their_texts_and_without_an_answer() -> None:
    asked = Embeddings().read(b'{"model":"m","input":["a","b","c"]}', "").request
    made = CLIENT.order(asked, DEAR, Nonce(bytes(32), bytes(16)), 100, None)
    assert made.request.max_input_tokens == 3 * DEAR.terms.context
    assert (made.request.max_output_tokens, made.request.max_cost) == (0, 3 * DEAR.terms.context * 3)
    assert made.call.operation == "embeddings"


@given(st.integers(1, 1_000))
def test_what_earlier_attempts_cost_cannot_be_spent_again(spent: int) -> None:
    whole = 20 * 3 + 100 * 7
    paying = Paying(CHAIN, 7, 20, spent)
    if spent >= 100 * 7:
        with pytest.raises(RetryElsewhere) as caught:
            order(paying)
        assert (caught.value.status, caught.value.code) == (402, "cost")
        return
    request = order(paying).request
    assert request.max_cost == whole - spent
    most = cost(DEAR.quote, request.max_input_tokens, 0, request.max_output_tokens)
    assert request.max_cost - 7 < most <= request.max_cost, "as much as is left, and no order that may cost more"


def test_of_what_is_left_each_answer_gets_a_token_at_least() -> None:
    whole = 3 * 100 * 7
    assert order(Paying(CHAIN, 7, 20, whole - 3 * 7), n=3).request.max_output_tokens == 3
    with pytest.raises(RetryElsewhere, match="all that this request may cost"):
        order(Paying(CHAIN, 7, 20, whole - 3 * 7 + 1), n=3)
