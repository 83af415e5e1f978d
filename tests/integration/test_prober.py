"""A validator looks at executors over real bridges, and signs what it saw."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from lloom.adapters.bridge import Connection, Link, dial
from lloom.adapters.routing.attempt import Keeping
from lloom.adapters.routing.deliveries import Deliveries
from lloom.adapters.routing.pool import Pool
from lloom.adapters.validator.prober import Prober
from lloom.adapters.validator.shopper import Shopper, Shoppers
from lloom.core import vouch
from lloom.core.eip712 import Domain
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity, NodeId
from lloom.core.offer import Endpoint, Offer, Payment
from lloom.core.order import Client
from lloom.core.routing.outcomes import Outcomes
from lloom.core.settings import ValidatorSettings
from lloom.core.sse import event
from lloom.core.vouch import Probe, Vouch
from tests.integration.bridge_support import NETWORK, on_both_loops, settings
from tests.integration.test_serving import chunk, model, opened
from tests.unit.adapters.routing_support import SETTINGS as ROUTING

SETTINGS = ValidatorSettings(
    executors=10,
    page=10,
    gossip_seconds=5,
    probe_seconds=600,
    probe_timeout_seconds=10,
    probe_tokens=16,
    probe_logprobs=0.0,
    probe_context=64,
    probes=2,
    probe_keys=2,
    probe_key_seconds=3600,
    probe_cost=10**9,
    purse=0,
    vouch_seconds=1800,
)
FINISH = event(msgspec.json.encode({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
END = event(b"[DONE]")
WELL = (chunk("It pulls "), chunk("everything down."), FINISH, END)
BODYLESS = (FINISH, END)


@dataclass
class Listed:
    """A catalogue of what a test puts in; everybody is in a network of its own."""

    listed: list[Offer]
    said: list[bytes] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def offers(self, now: float) -> list[Offer]:
        return self.listed

    def source(self, executor: NodeId) -> str:
        return executor.hex()

    def put_vouch(self, sealed: bytes, vouch: Vouch, now: float) -> bool:
        self.said.append(sealed)
        self.news.set()
        return True


def pool_of(me: Identity, deliveries: Deliveries) -> Pool:
    link = Link(me, NETWORK, settings())

    async def reach(endpoint: Endpoint, executor: NodeId) -> Connection:
        return await dial(endpoint, executor, link, deliveries.on_control)

    return Pool(reach, 16)


def shopper(me: Identity) -> Shopper:
    deliveries = Deliveries(lambda _executor, _receipt: None)
    return Shopper(Client(me, Domain()), pool_of(me, deliveries), Keeping(ROUTING, Outcomes(600, 5), deliveries))


@asynccontextmanager
async def prober(
    *offers: Offer,
    payer: Shopper | None = None,
    owner: Identity | None = None,
    clock: Callable[[], float] = time.monotonic,
    **changes: Any,
) -> AsyncIterator[tuple[Prober, Listed]]:
    """A validator's prober, and the catalogue that it works on."""
    shoppers = Shoppers(owner or Identity.generate(), shopper, replace(SETTINGS, **changes), payer)
    listed = Listed(list(offers))
    try:
        yield Prober(listed, shoppers, NETWORK, Random(1), clock), listed
    finally:
        await shoppers.close()


@on_both_loops
async def test_an_executor_that_answers_is_vouched_for_and_others_can_check_that() -> None:
    async with opened(*WELL) as counter:
        offer = counter.publish()
        offer = replace(offer, models=(*offer.models, model("ghost")))
        async with prober(offer) as (its, listed):
            await its.look(offer)
        said = vouch.unseal(listed.said[0], NETWORK, time.time())
        assert said.executor == counter.executor.identity.address
        assert said.reached == (counter.executor.endpoint,)
        found = said.probe("m")
        assert found is not None
        assert found.answered
        assert found.tokens_per_second >= 0  # a clock of milliseconds may not tell two chunks apart
        assert 30 <= found.context <= 100
        # What is offered and not served is found out.
        assert said.probe("ghost") == Probe("ghost", answered=False)


@on_both_loops
async def test_the_requests_of_a_probe_look_like_any_clients() -> None:
    async with opened(*WELL) as counter:
        offer = counter.publish()
        async with prober(offer) as (its, _):
            await its.look(offer)
            await its.look(offer)
        bodies = [msgspec.json.decode(body) for _, body in counter.engine.asked]
        assert len({body["messages"][0]["content"] for body in bodies}) == len(bodies) == 8
        assert {body["max_tokens"] for body in bodies} <= set(range(8, 17))
        common = ("max_tokens", "messages", "model", "stream")
        assert {tuple(sorted(body)) for body in bodies} == {common, tuple(sorted((*common, "temperature")))}


@on_both_loops
async def test_what_costs_money_is_not_asked_and_nothing_is_held_against_it() -> None:
    async with opened(*WELL) as counter:
        payments = (Payment(1, bytes(20), bytes(20), 1_000_000),)
        offer = replace(counter.publish(), payments=payments)
        assert all(each.input_price for each in offer.models)
        async with prober(offer) as (its, _):
            said = await its.look(offer)
    assert said.reached
    assert said.probes == ()


@on_both_loops
async def test_an_executor_that_is_gone_is_said_to_be_unreached() -> None:
    async with opened(*WELL) as counter:
        offer = replace(counter.publish(), endpoints=(Endpoint("127.0.0.1", 9),))
        async with prober(offer) as (its, _):
            said = await its.look(offer)
    assert not said.reached
    assert [found.answered for found in said.probes] == [False, False]


@on_both_loops
async def test_an_impostor_at_the_address_is_not_counted_as_reached() -> None:
    async with opened(*WELL) as counter:
        offer = replace(counter.publish(), executor=Identity.generate().address)
        async with prober(offer) as (its, _):
            said = await its.look(offer)
    assert not said.reached


@pytest.mark.parametrize(
    "script",
    [
        (chunk("It pulls "), END),
        (event(b"no json"), END),
        BODYLESS[1:],
        (RetryElsewhere("the card is on fire", code="backend_failed"),),
    ],
    ids=["no end", "garbage", "nothing", "failure"],
)
def test_what_is_no_answer_is_not_taken_for_one(script: tuple[Any, ...]) -> None:
    async def story() -> None:
        async with asyncio.timeout(20), opened(*script) as counter:
            offer = counter.publish()
            async with prober(offer) as (its, _):
                said = await its.look(offer)
            assert said.reached
            assert said.probe("m") == Probe("m", answered=False)

    asyncio.run(story())


@on_both_loops
async def test_a_busy_executor_keeps_its_good_name() -> None:
    async with opened(*WELL) as counter:
        offer = counter.publish()
        async with prober(offer) as (its, _):
            first = await its.look(offer)
            counter.engine.script = (RetryElsewhere("all places are taken", status=429, code="busy"),)
            again = await its.look(offer)
    assert again.probe("m") == first.probe("m")


@on_both_loops
async def test_everybody_has_a_turn_by_itself() -> None:
    async with opened(*WELL) as counter:
        offer = counter.publish()
        gone = replace(offer, executor=Identity.generate().address, endpoints=(Endpoint("127.0.0.1", 9),))
        async with prober(gone, offer) as (its, listed):
            running = asyncio.create_task(its.run())
            while len(listed.said) < 2:
                listed.news.clear()
                await listed.news.wait()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        seen = [vouch.unseal(sealed, NETWORK, time.time()) for sealed in listed.said]
        assert {said.executor: bool(said.reached) for said in seen} == {offer.executor: True, gone.executor: False}
