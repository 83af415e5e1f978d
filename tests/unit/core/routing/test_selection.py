from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import msgspec
import pytest

from lloom.core.api.chat import parse
from lloom.core.api.request import ApiRequest
from lloom.core.billing.quote import quote_hash, quote_of
from lloom.core.identity import NodeId
from lloom.core.offer import Endpoint, ModelOffer, Offer
from lloom.core.reputation.evidence import Kind
from lloom.core.routing.candidate import Candidate, Choice, Nobody
from lloom.core.routing.outcomes import Failure, Outcomes
from lloom.core.routing.rules import Rules
from lloom.core.routing.score import alone
from lloom.core.routing.selection import Selection
from lloom.core.settings import Policy


def candidate(name: int, port: int = 1, **terms: Any) -> Candidate:
    fields: dict[str, Any] = {
        "id": "m",
        "context": 2048,
        "max_output": 512,
        "parallel": 4,
        "encoding": "o200k_base",
        "backend": "mock",
    }
    model = ModelOffer(**{**fields, **terms})
    executor, endpoint = NodeId(bytes([name]) * 20), Endpoint("127.0.0.1", port)
    offer = Offer(executor=executor, seq=1, expires=10, endpoints=(endpoint,), models=(model,), software="t")
    quote = quote_of(offer, model)
    return Candidate(executor, endpoint, model, quote, quote_hash(quote))


def request(**fields: Any) -> ApiRequest:
    return parse(msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}))


def selection(policy: Policy = "balanced", *pinned: Candidate) -> Selection:
    rules = Rules(policy, tuple(each.executor for each in pinned), explore=0.25)
    return Selection(rules, Outcomes(memory=100.0, rest=5.0))


def ask(chosen: Selection, *args: Any) -> Candidate | Nobody:
    """Who is chosen; the arguments are those of `choose`."""
    found = chosen.choose(*args)
    return found.candidate if isinstance(found, Choice) else found


def draws(chosen: Selection, candidates: list[Candidate], times: int = 300) -> Counter[Candidate | Nobody]:
    rng = Random(7)
    return Counter(ask(chosen, candidates, request(), (), 0.0, rng) for _ in range(times))


A, B, C = candidate(1), candidate(2), candidate(3)


def test_equals_share_the_work_evenly() -> None:
    shares = draws(selection(), [A, B, C])
    assert all(70 < shares[each] < 130 for each in (A, B, C))


def test_a_busy_one_gets_less() -> None:
    chosen = selection()
    for _ in range(3):
        chosen.outcomes.began(A.place)
    assert draws(chosen, [A, B])[A] == 0


def test_a_dear_one_gets_less() -> None:
    dear = candidate(1, input_price=100, output_price=100)
    assert draws(selection(), [dear, B])[dear] == 0


def test_a_slow_one_gets_less() -> None:
    chosen = selection()
    chosen.outcomes.answered(A.place, 2.0, 0.0)
    chosen.outcomes.answered(B.place, 0.5, 0.0)
    assert draws(chosen, [A, B])[A] == 0


def test_one_that_fails_half_the_time_gets_less() -> None:
    chosen = selection()
    for _ in range(10):
        chosen.outcomes.succeeded(B.place, 0.0, 1, 0.0)
        chosen.outcomes.failed(A.place, 0.0, how=Failure.REFUSED, retry_after=None)
        chosen.outcomes.succeeded(A.place, 0.0, 1, 0.0)
    assert draws(chosen, [A, B])[A] == 0


def test_the_best_does_not_draw_the_whole_herd() -> None:
    """Two are drawn at random, so the best of ten gets the 20 % in which it is drawn."""
    chosen = selection()
    crowd = [candidate(number) for number in range(10)]
    for each in [*crowd, *[crowd[0]] * 10]:
        chosen.outcomes.succeeded(each.place, 0.0, 1, 0.0)
    assert 30 < draws(chosen, crowd)[crowd[0]] < 90


def test_cheapest_takes_the_cheapest_and_shares_among_equals() -> None:
    dear = candidate(1, output_price=9)
    shares = draws(selection("cheapest"), [dear, B, C])
    assert shares[dear] == 0
    assert shares[B] > 0
    assert shares[C] > 0


def test_fastest_takes_the_fastest_once_all_are_known() -> None:
    chosen = selection("fastest")
    chosen.outcomes.answered(A.place, 0.5, 0.0)
    chosen.outcomes.answered(B.place, 0.2, 0.0)
    assert set(draws(chosen, [A, B])) == {B}
    assert set(draws(chosen, [A, B, C])) == {C}


def test_pinned_takes_the_named_in_their_order_and_nobody_else() -> None:
    chosen = selection("pinned", B, A)
    assert set(draws(chosen, [A, B, C])) == {B}
    assert set(draws(chosen, [A, C])) == {A}
    nobody = ask(chosen, [C], request(), (), 0.0, Random(0))
    assert isinstance(nobody, Nobody)
    assert "routing.executors" in nobody.reason


def test_the_tried_are_not_asked_again_and_another_executor_comes_first() -> None:
    second_worker = candidate(1, port=2)
    chosen, rng = selection(), Random(0)
    assert ask(chosen, [A, second_worker, B], request(), {A.place}, 0.0, rng) == B
    assert ask(chosen, [A, second_worker], request(), {A.place}, 0.0, rng) == second_worker
    nobody = ask(chosen, [A, B], request(), {A.place, B.place}, 0.0, rng)
    assert isinstance(nobody, Nobody)


def test_one_that_refused_lately_is_the_last_resort() -> None:
    chosen = selection()
    chosen.outcomes.failed(A.place, 0.0, how=Failure.REFUSED, retry_after=None)
    assert set(draws(chosen, [A, B])) == {B}
    assert set(draws(chosen, [A])) == {A}


@pytest.mark.parametrize("policy", ["balanced", "cheapest", "fastest"])
@pytest.mark.parametrize("why", ["it answered us", "validators saw it answer"])
def test_of_many_strangers_few_requests_try_one_and_none_tries_two(policy: Policy, why: str) -> None:
    chosen, known = selection(policy), candidate(0, input_price=9, output_price=9)
    strangers = [candidate(number) for number in range(1, 250)]
    if why == "it answered us":
        chosen.outcomes.succeeded(known.place, 0.0, 1, 0.0)
    else:
        chosen.outcomes.reputations.said(known.executor, 0.75)
    rng, tries = Random(7), 0
    for _ in range(300):
        first = ask(chosen, [*strangers, known], request(), (), 0.0, rng)
        assert isinstance(first, Candidate)
        if first is not known:
            tries += 1
            assert ask(chosen, [*strangers, known], request(), [first.place], 0.0, rng) is known
    assert 30 < tries < 120, "newcomers get their chance"


def test_strangers_are_asked_when_those_that_are_known_are_busy_or_silent() -> None:
    chosen = selection()
    chosen.outcomes.succeeded(A.place, 0.0, 1, 0.0)
    for _ in range(2):
        chosen.outcomes.succeeded(A.place, 0.0, 1, 0.0)
    chosen.outcomes.failed(A.place, 0.0, Failure.REFUSED, 2.0)
    assert set(draws(chosen, [A, B, C])) == {B, C}


def test_one_that_was_silent_is_not_tried_while_there_are_others() -> None:
    chosen = selection()
    chosen.outcomes.failed(A.place, 0.0, how=Failure.SILENT, retry_after=None)
    assert set(draws(chosen, [A, B])) == {B}
    assert ask(chosen, [A, B], request(), {B.place}, 2.0, Random(0)) == A


def test_if_it_is_the_only_one_a_single_request_finds_out_whether_it_is_back() -> None:
    chosen, rng = selection(), Random(0)
    chosen.outcomes.failed(A.place, 0.0, how=Failure.SILENT, retry_after=None)
    assert ask(chosen, [A], request(), (), 2.0, rng) == A
    chosen.outcomes.began(A.place)
    nobody = ask(chosen, [A], request(), (), 2.0, rng)
    assert isinstance(nobody, Nobody)
    assert (nobody.code, nobody.retry_after, nobody.soon) == ("no_executor", 3.0, True)
    assert isinstance(ask(chosen, [A], request(), (), 5.0, rng), Nobody)
    chosen.outcomes.ended(A.place)
    assert ask(chosen, [A], request(), (), 5.0, rng) == A


def test_only_offers_with_the_features_are_asked() -> None:
    able = candidate(2, features=("tools", "json"))
    wants = request(tools=[{"type": "function", "function": {"name": "f"}}], response_format={"type": "json_object"})
    chosen, rng = selection(), Random(0)
    assert {ask(chosen, [A, able], wants, (), 0.0, rng) for _ in range(20)} == {able}
    nobody = ask(chosen, [A, B], wants, (), 0.0, rng)
    assert isinstance(nobody, Nobody)
    assert nobody.code == "unsupported_feature"
    assert "2 without json, tools" in nobody.reason


def test_only_offers_for_the_operation_are_asked() -> None:
    able = candidate(2, operations=("chat", "embeddings"))
    wants = msgspec.structs.replace(request(), operation="embeddings")
    chosen, rng = selection(), Random(0)
    assert {ask(chosen, [A, able], wants, (), 0.0, rng) for _ in range(20)} == {able}
    nobody = ask(chosen, [A, B], wants, (), 0.0, rng)
    assert isinstance(nobody, Nobody)
    assert (nobody.code, nobody.param) == ("unsupported_operation", "model")
    assert "does not do embeddings" in nobody.reason


@pytest.mark.parametrize(
    ("fields", "code", "number"),
    [
        ({"messages": [{"role": "user", "content": "x" * 100_000}]}, "context_length_exceeded", "2048"),
        ({"max_tokens": 513}, "invalid_value", "512"),
    ],
)
def test_what_is_too_long_for_all_names_the_limit(fields: dict[str, Any], code: str, number: str) -> None:
    small = candidate(2, context=1024, max_output=256)
    nobody = ask(selection(), [A, small], request(**fields), (), 0.0, Random(0))
    assert isinstance(nobody, Nobody)
    assert nobody.code == code
    assert number in nobody.reason


def test_a_limit_that_only_had_to_be_named_keeps_nobody_out() -> None:
    only = candidate(1, max_output=256)
    asked = request(max_tokens=32_000)
    assert isinstance(ask(selection(), [only], asked, (), 0.0, Random(0)), Nobody)
    assert ask(selection(), [only], msgspec.structs.replace(asked, at_most=True), (), 0.0, Random(0)) is only


def test_what_is_too_long_for_one_goes_to_the_other() -> None:
    large = candidate(2, context=1 << 20, max_output=4096)
    long = request(messages=[{"role": "user", "content": "x" * 100_000}], max_tokens=1000)
    chosen, rng = selection(), Random(0)
    assert {ask(chosen, [A, large], long, (), 0.0, rng) for _ in range(20)} == {large}


def test_a_liar_is_no_last_resort() -> None:
    chosen = selection()
    chosen.outcomes.failed(A.place, 0.0, Failure.LIED, None)
    assert isinstance(ask(chosen, [A], request(), (), 2.0, Random(0)), Nobody)


def test_who_was_dishonest_comes_after_others_and_is_asked_where_there_is_nobody_else() -> None:
    dear = candidate(2, output_price=9)
    rules = Rules("cheapest", reputation=0.67)
    chosen, heedless = (Selection(each, Outcomes(100.0, 5.0)) for each in (rules, replace(rules, reputation=0.0)))
    for each in (chosen, heedless):
        for _ in range(20):
            each.outcomes.reputations.note(A.executor, "m", Kind.COUNT, 0.0, right=False)
    assert set(draws(chosen, [A, dear])) == {dear}
    assert set(draws(chosen, [A])) == {A}
    assert set(draws(heedless, [A, dear])) == {A}, "nobody wanted reputations to count"


def test_the_weight_of_reputation_is_the_users() -> None:
    outcomes = Outcomes(100.0, 5.0)
    outcomes.reputations.said(A.executor, 0.0)
    scores = []
    for weight in (0.0, 0.5):
        selection = Selection(Rules(reputation=weight), outcomes)
        entrants = selection.entrants([A, B], 0.0)
        scores.append(selection.scale(entrants, None).score(entrants[0]))
    assert scores[1] == scores[0] / 2


@pytest.mark.parametrize("dear", [0, 7])
@pytest.mark.parametrize("seen", [0, 3])
@pytest.mark.parametrize("exploring", [False, True])
def test_the_only_one_has_the_score_that_it_has_compared_with_itself(dear: int, seen: int, exploring: bool) -> None:
    chosen, only = Selection(Rules(reputation=0.5), Outcomes(100.0, 5.0)), candidate(1, output_price=dear)
    for _ in range(seen):
        chosen.outcomes.answered(only.place, 0.5, 0.0)
        chosen.outcomes.succeeded(only.place, 0.0, 20, 1.0)
        chosen.outcomes.began(only.place)
    entrants = chosen.entrants([only], 0.0)
    compared = chosen.scale(entrants, None).score(entrants[0], hopeful=exploring)
    assert alone(entrants[0], reputation=0.5, hopeful=exploring) == pytest.approx(compared)
