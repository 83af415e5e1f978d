"""Whom a client does not ask because of money."""

from __future__ import annotations

from random import Random

import pytest

from lloom.core.api.request import ApiRequest
from lloom.core.billing.quote import quote_hash, quotes_of
from lloom.core.offer import Offer, Payment
from lloom.core.routing.candidate import Candidate, Nobody
from lloom.core.routing.filters import Limits, Misfit, Spending
from lloom.core.routing.outcomes import Outcomes
from lloom.core.routing.rules import Rules
from lloom.core.routing.selection import Selection
from tests.unit.core.routing.test_selection import ask, candidate, request

WAY = Payment(1, bytes(20), bytes(20), 2 * 10**6)
"""Prices count double in its token."""


def paid(number: int, *ways: Payment, **prices: int) -> list[Candidate]:
    """An executor that is paid in any of `ways`."""
    free = candidate(number, **prices)
    offer = Offer(
        executor=free.executor,
        seq=1,
        expires=10,
        endpoints=(free.endpoint,),
        models=(free.terms,),
        software="t",
        payments=ways,
    )
    return [
        Candidate(free.executor, free.endpoint, free.terms, quote, quote_hash(quote), way)
        for way, quote in quotes_of(offer, free.terms)
    ]


def choose(spending: Spending, *candidates: Candidate) -> Candidate | Nobody:
    rules = Rules("cheapest", limits=Limits(spending=spending))
    return ask(Selection(rules, Outcomes(100.0, 5.0)), candidates, request(), (), 0.0, Random(1))


def anything(_: Candidate, __: ApiRequest) -> Misfit | None:
    return None


def test_who_wants_nothing_is_asked_by_everybody() -> None:
    free = candidate(1, input_price=99)
    assert choose(Spending(), free) is free
    assert choose(Spending(1, 1, anything), free) is free


def test_a_node_without_money_is_told_how_to_have_some() -> None:
    [dear] = paid(1, WAY, output_price=5)
    found = choose(Spending(), dear)
    assert isinstance(found, Nobody)
    assert found.code == "payment_required"
    assert found.reason == (
        "No executor of m can take this request: "
        "1 that costs money, and this node has no chain: give it one (chain=…, accounting=batched)."
    )


@pytest.mark.parametrize(
    ("limits", "taken"), [((10, 20), True), ((9, 20), False), ((10, 19), False), ((None, None), True)]
)
def test_prices_are_compared_in_the_token_that_is_paid(limits: tuple[int | None, int | None], taken: bool) -> None:
    [dear] = paid(1, WAY, input_price=5, output_price=10)
    found = choose(Spending(*limits, anything), dear)
    assert (found is dear) == taken
    if isinstance(found, Nobody):
        assert found.code == "price"
        assert "routing.max_" in found.reason


def test_of_several_ways_one_that_can_be_paid_is_taken() -> None:
    other = Payment(2, bytes(20), bytes(20), 10**6)
    first, second = paid(1, WAY, other, output_price=10)
    none = Misfit("payment", "that is of no use")
    found = choose(Spending(None, None, lambda each, _: None if each.payment == other else none), first, second)
    assert found is second


def test_what_a_key_lacks_is_told_with_when_it_has_more() -> None:
    [soon], [later] = paid(1, WAY, output_price=5), paid(2, WAY, output_price=5)
    small = candidate(3, max_output=1)

    def lacks(each: Candidate, _: ApiRequest) -> Misfit | None:
        return Misfit("quota", "that costs more than is left", seconds=60 if each is soon else 3600)

    rules = Rules("cheapest", limits=Limits(spending=Spending(problem=lacks)))
    for candidates in ((soon, later), (soon, later, small)):
        found = ask(Selection(rules, Outcomes(100.0, 5.0)), candidates, request(max_tokens=2), (), 0.0, Random(1))
        assert isinstance(found, Nobody)
        assert (found.code, found.retry_after, found.soon) == ("insufficient_quota", 60, False)
        assert "2 that costs more than is left" in found.reason


def test_of_two_reasons_the_one_that_no_money_mends_decides() -> None:
    [dear] = paid(1, WAY, output_price=5)
    small = candidate(2, max_output=1)
    found = ask(
        Selection(Rules("cheapest"), Outcomes(100.0, 5.0)), [dear, small], request(max_tokens=2), (), 0.0, Random(1)
    )
    assert isinstance(found, Nobody)
    assert (found.code, "1 that costs money" in found.reason) == ("no_executor", True)
