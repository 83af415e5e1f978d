"""A validator's shoppers over real bridges: they look like clients, pay like them, and find out who lies."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from market_support import END, TOKEN_COST, Buyer, Sale, Seller, Serve, buying, listening, well
from payables_support import CLIENT
from test_prober import SETTINGS, pool_of, prober

from lloom.adapters.routing.attempt import Keeping
from lloom.adapters.validator.prober import Prober
from lloom.adapters.validator.shopper import Shopper
from lloom.core.eip712 import Domain
from lloom.core.errors import CallerFault
from lloom.core.honesty import Conduct
from lloom.core.identity import Identity
from lloom.core.messages import Done
from lloom.core.offer import ModelOffer
from lloom.core.order import Client
from lloom.core.sse import event
from lloom.core.vouch import Probe, Vouch
from tests.unit.adapters.routing_support import SETTINGS as ROUTING
from tests.unit.adapters.routing_support import chunk

VOCABULARY = (
    "salt",
    "river",
    "stone",
    "always",
    "under",
    "seldom",
    "green",
    "nine",
    "carries",
    "toward",
    "old",
    "bright",
)
PERIODS = 8
SORRY = ["I", "am", "sorry", ",", "but", "I", "cannot", "help", "you", "with", "that", "today", "."]


def asked(sale: Sale) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(sale.body)
    return found


def answer(sale: Sale, model: str = "honest") -> list[str]:
    """What a deterministic model says to a question."""
    seed = hashlib.sha256(model.encode() + asked(sale)["messages"][0]["content"].encode()).digest()
    return Random(seed).choices(VOCABULARY, k=14)


def serving(say: Callable[[Sale], list[str]], claim: Callable[[int], int] = lambda count: count) -> Serve:
    async def serve(sale: Sale) -> None:
        said = say(sale)
        await sale.send(*[chunk({"content": f" {word}"}) for word in said], END)
        await sale.stream.finish(Done(9, claim(len(said))))

    return serve


async def frugally(sale: Sale) -> None:
    """Serves as it should, and no more than was ordered."""
    await well(sale, min(4, asked(sale)["max_tokens"]))


def other_machine(sale: Sale) -> list[str]:
    """The same model, whose answer takes another turn in the end."""
    return [*answer(sale)[:9], *answer(sale, "turn")[:5]]


def free(serve: Serve) -> Seller:
    return Seller(serve, price=0, payments=())


async def rounds(its: Prober, sellers: tuple[Seller, ...], clock: list[float]) -> list[Vouch]:
    """What is said of each after some periods."""
    said = []
    for _ in range(PERIODS + 1):
        said = [await its.look(seller.offer) for seller in sellers]
        clock[0] += SETTINGS.probe_seconds
    return said


def conduct(said: Vouch) -> Conduct:
    """How the one model behaved, but for its speed: these answer within a millisecond, as no model does."""
    return msgspec.structs.replace(said.probes[0].conduct, hurried=0)


async def test_liars_are_found_out_and_other_machines_are_not() -> None:
    sellers = (
        *(free(serving(answer)) for _ in range(3)),
        free(serving(other_machine)),
        free(serving(lambda sale: answer(sale, "cheaper"))),
        free(serving(lambda _: SORRY)),
        free(serving(answer, lambda count: 5 * count)),
    )
    clock = [0.0]
    async with asyncio.timeout(60), listening(*sellers), prober(clock=lambda: clock[0]) as (its, _):
        said = await rounds(its, sellers, clock)
        assert its.suspected >= 3
    doubts = [conduct(said_of).doubts() for said_of in said]
    different, constant, padded = (
        "answers as another model would",
        "answers different questions with the same words",
        "claims more tokens than it sends",
    )
    assert doubts == [(), (), (), (), (different,), (different, constant), (padded,)]
    assert all(said_of.doubted for said_of in said[4:])
    assert all(said_of.answers for said_of in said), "they answer, after all"
    assert conduct(said[0]) == Conduct(answers=PERIODS + 1, compared=PERIODS)


async def test_one_answer_that_differs_condemns_nobody() -> None:
    count = 0

    def once(sale: Sale) -> list[str]:
        nonlocal count
        count += 1
        return answer(sale, "dream" if count == 1 else "honest")

    sellers = (*(free(serving(answer)) for _ in range(3)), free(serving(once)))
    clock = [0.0]
    async with asyncio.timeout(60), listening(*sellers), prober(clock=lambda: clock[0]) as (its, _):
        said = await rounds(its, sellers, clock)
    assert conduct(said[3]) == Conduct(answers=PERIODS + 1, compared=PERIODS, differed=1)
    assert conduct(said[3]).doubts() == ()


async def test_executors_are_visited_by_strangers_who_change_and_ask_all_the_same() -> None:
    sellers = tuple(
        free(serving(answer)) for _ in range(16)
    )  # of six, one in a thousand times all get the same visitor
    owner, clock, began = Identity.generate(), [0.0], time.time()
    async with (
        asyncio.timeout(60),
        listening(*sellers),
        # An epoch that ends meanwhile would have others come.
        prober(owner=owner, clock=lambda: clock[0], probe_keys=4, probe_key_seconds=1 << 40) as (its, _),
    ):
        for seller in sellers:
            await its.look(seller.offer)
    visitors = {sale.stream.connection.peer for seller in sellers for sale in seller.sales}
    assert owner.address not in visitors
    assert 2 <= len(visitors) <= 4
    assert all(sale.request.client == sale.stream.connection.peer for seller in sellers for sale in seller.sales)
    lives = [sale.request.deadline - began for seller in sellers for sale in seller.sales]
    assert min(lives) >= ROUTING.total_seconds > SETTINGS.probe_timeout_seconds, (
        "a probe waits no shorter than a client"
    )
    questions = {asked(seller.sales[0])["messages"][0]["content"] for seller in sellers}
    assert len(questions) == 1


class Telling(Seller):
    """Serves for nothing, and says of its model that it gives logprobs."""

    def _model(self, name: str) -> ModelOffer:
        return msgspec.structs.replace(super()._model(name), features=("logprobs", "seed"))


def telling(serve: Serve) -> Telling:
    return Telling(serve, price=0, payments=())


def expecting(sure: float | None, *others: float) -> Serve:
    """Says what all say, and tells, if asked, that the first token was as likely as `sure`, and what else could have been."""

    async def serve(sale: Sale) -> None:
        said, fields = answer(sale), asked(sale)
        for word in said:
            piece = event_of({"content": f" {word}"}, _account(word, sure, others) if fields.get("logprobs") else None)
            await sale.send(piece)
        await sale.send(END)
        await sale.stream.finish(Done(9, len(said)))

    return serve


def _account(word: str, sure: float | None, others: tuple[float, ...]) -> dict[str, Any] | None:
    if sure is None:
        return None
    said = {"token": f" {word}", "logprob": sure, "bytes": list(f" {word}".encode())}
    likely = [{"token": f" other{number}", "logprob": each} for number, each in enumerate(others)]
    return {"content": [{**said, "top_logprobs": [said, *likely]}], "refusal": None}


def event_of(delta: dict[str, Any], logprobs: dict[str, Any] | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None, "logprobs": logprobs}
    return event(msgspec.json.encode({"choices": [choice]}))


async def unable(sale: Sale) -> None:
    """Offers logprobs, and refuses to give any."""
    if "logprobs" in asked(sale):
        raise CallerFault("logprobs are not supported", code="unsupported_parameter", param="logprobs")
    await serving(answer)(sale)


async def test_who_says_what_all_say_and_expected_otherwise_is_found_out() -> None:
    sellers = (
        telling(expecting(-0.5, -1.5, -3.0)),
        telling(expecting(-0.55, -1.4, -3.1)),
        telling(expecting(-0.48, -1.6, -2.9)),
        telling(expecting(-0.51, -1.45, -3.2)),
        telling(expecting(-0.01, -6.0, -7.0)),
        telling(expecting(0.7)),
        telling(expecting(None)),
        telling(unable),
        free(serving(answer)),
    )
    clock = [0.0]
    async with (
        asyncio.timeout(120),
        listening(*sellers),
        prober(clock=lambda: clock[0], probe_logprobs=1.0) as (its, _),
    ):
        said = await rounds(its, sellers, clock)
    assert [conduct(said_of).doubts() for said_of in said] == [
        *[()] * 4,
        ("answers as another model would",),
        *[()] * 4,
    ]
    assert all(said_of.answers for said_of in said)
    assert conduct(said[4]) == Conduct(answers=PERIODS + 1, compared=PERIODS, differed=PERIODS)


async def test_all_who_can_are_asked_for_logprobs_in_the_same_question_and_nobody_else_is() -> None:
    sellers = (*(telling(expecting(-0.5, -1.5)) for _ in range(3)), free(serving(answer)))
    clock = [0.0]
    async with (
        asyncio.timeout(60),
        listening(*sellers),
        prober(clock=lambda: clock[0], probe_logprobs=0.5) as (its, _),
    ):
        await rounds(its, sellers, clock)
    told = [
        [
            (fields["messages"][0]["content"], fields.get("logprobs"), fields.get("top_logprobs"))
            for sale in seller.sales
            if "temperature" in (fields := asked(sale))
        ]
        for seller in sellers
    ]
    assert told[0] == told[1] == told[2]
    assert {each[1:] for each in told[0]} == {(True, 5), (None, None)}
    assert [each[0] for each in told[3]] == [each[0] for each in told[0]]
    assert {each[1:] for each in told[3]} == {(None, None)}


async def test_who_cannot_give_logprobs_after_all_is_asked_the_same_without() -> None:
    seller = telling(unable)
    async with asyncio.timeout(60), listening(seller), prober(probe_logprobs=1.0) as (its, _):
        said = await its.look(seller.offer)
    assert said.answers
    first, again, _ = map(asked, seller.sales)
    assert {name: first[name] for name in again} == again
    assert set(first) - set(again) == {"logprobs", "top_logprobs"}
    assert "seed" in again


async def test_of_an_answer_without_end_no_more_is_kept_than_is_compared() -> None:
    seller = free(serving(lambda sale: answer(sale) * 1000))
    async with asyncio.timeout(60), listening(seller), prober() as (its, _):
        said = await its.look(seller.offer)
        [(_, kept)] = its._scrutiny._rounds["m"].panel._answers.values()
    assert said.answers
    assert sum(map(len, kept.words)) <= 4096 < kept.tokens


@asynccontextmanager
async def paying(path: Path, *sellers: Seller, **limits: Any) -> AsyncIterator[tuple[Buyer, Shopper]]:
    """Who pays for probes."""
    async with listening(*sellers), buying(path, *sellers, **limits) as buyer:
        pool = pool_of(CLIENT, buyer.deliveries)
        keeping = Keeping(ROUTING, buyer.outcomes, buyer.deliveries)
        try:
            yield buyer, Shopper(Client(CLIENT, Domain()), pool, keeping, buyer.purses)
        finally:
            await pool.close()


async def test_what_costs_money_is_asked_and_paid_like_by_any_client(tmp_path: Path) -> None:
    seller = Seller(frugally)
    async with asyncio.timeout(60), paying(tmp_path / "ledger.sqlite", seller) as (buyer, payer):
        async with prober(payer=payer) as (its, _):
            said = await its.look(seller.offer)
            await buyer.bank.settled(2)
        found = said.probe("m")
        assert found is not None
        assert (found.answered, found.context > 0) == (True, True)
        assert [sale.request.client for sale in seller.sales] == [CLIENT.address] * 2
        assert all(sale.call.voucher is not None for sale in seller.sales)
        assert buyer.problems == ["", ""]
        assert buyer.lane(seller).payable.accepted == seller.book.charged > 0


async def test_logprobs_are_paid_for_like_the_words_alone(tmp_path: Path) -> None:
    async def telling_and_billing(sale: Sale) -> None:
        words = min(4, asked(sale)["max_tokens"])
        account = _account("hello", -0.5, (-1.5, -3.0)) if asked(sale).get("logprobs") else None
        await sale.send(*[event_of({"content": " hello"}, account)] * words, END)
        await sale.stream.finish(Done(9, words))
        sale.bill(sale.receipt(9, words))

    seller = Telling(telling_and_billing)
    async with asyncio.timeout(60), paying(tmp_path / "ledger.sqlite", seller) as (buyer, payer):
        async with prober(payer=payer, probe_logprobs=1.0) as (its, _):
            said = await its.look(seller.offer)
            await buyer.bank.settled(2)
        assert said.answers
        assert [asked(sale).get("logprobs") for sale in seller.sales] == [True, None]
        assert buyer.problems == ["", ""]
        assert buyer.lane(seller).payable.accepted == seller.book.charged > 0


async def test_probing_ends_with_the_budget_and_says_nothing_then(tmp_path: Path) -> None:
    seller = Seller(frugally)
    budget = 400 * TOKEN_COST
    async with asyncio.timeout(60), paying(tmp_path / "ledger.sqlite", seller, budget=budget) as (buyer, payer):
        async with prober(payer=payer) as (its, _):
            said = [await its.look(seller.offer) for _ in range(8)]
        assert max(seller.vouchers) <= budget
        assert [bool(each.probes) for each in said] == sorted((bool(each.probes) for each in said), reverse=True)
        assert (said[0].tells, said[-1].tells) == (True, False)
        assert buyer.lies == []


DEAR = (SETTINGS.probe_context + SETTINGS.probe_tokens) * TOKEN_COST
"""The most that a question costs."""


@pytest.mark.parametrize(("most", "times"), [(DEAR, 2), (DEAR - 1, 0)])
async def test_what_a_question_may_cost_is_bounded(tmp_path: Path, most: int, times: int) -> None:
    seller = Seller(frugally)
    async with (
        asyncio.timeout(60),
        paying(tmp_path / "ledger.sqlite", seller) as (_, payer),
        prober(payer=payer, probe_cost=most) as (its, _),
    ):
        said = await its.look(seller.offer)
    assert len(seller.sales) == times
    assert said.reached
    assert bool(said.probes) == bool(times)


async def test_an_executor_that_takes_the_money_and_is_silent_does_not_answer(tmp_path: Path) -> None:
    async def keeps_it(sale: Sale) -> None:
        await sale.stream.finish(Done(9, 0))

    seller = Seller(keeps_it)
    async with (
        asyncio.timeout(60),
        paying(tmp_path / "ledger.sqlite", seller) as (_, payer),
        prober(payer=payer) as (its, _),
    ):
        said = await its.look(seller.offer)
    assert said.probes == (Probe("m", answered=False),)


async def test_a_seller_is_asked_for_nothing_by_a_validator_without_money() -> None:
    seller = Seller(well)
    async with asyncio.timeout(60), listening(seller), prober() as (its, _):
        said = await its.look(seller.offer)
    assert said.reached
    assert not said.tells
    assert seller.sales == []
