from __future__ import annotations

import asyncio

from lloom.core.errors import RetryElsewhere
from lloom.core.identity import checksum
from tests.unit.adapters.routing_support import FakeExecutor, Net, until


async def names(net: Net, model: str = "m") -> set[int]:
    found = await net.directory.candidates(model)
    return {candidate.endpoint.port for candidate in found.candidates}


async def test_whoever_serves_the_model_is_a_candidate_under_its_signed_terms() -> None:
    first, other = FakeExecutor(1), FakeExecutor(2, models=("x",))
    async with Net(first, other) as net:
        found = await net.directory.candidates("m")
        [candidate] = found.candidates
        assert (candidate.executor, candidate.endpoint) == (first.address, first.endpoint)
        assert candidate.terms == first.offer.models[0]
        assert candidate.quote.executor == first.address
        assert (found.announced, found.problems) == (1, ())


async def test_what_is_known_is_answered_from_memory_and_asked_anew_behind_the_answer() -> None:
    first = FakeExecutor(1)
    async with Net(first) as net:
        assert await names(net) == {1}
        assert await names(net) == {1}
        assert net.dht.lookups == ["m"]
        net.clock.now += 31
        net.dht.gate = asyncio.Event()
        assert await names(net) == {1}  # the DHT has not answered yet
        await until(lambda: net.dht.lookups == ["m", "m"])
        net.dht.gate.set()


async def test_an_offer_is_fetched_again_only_when_another_one_is_announced() -> None:
    first = FakeExecutor(1)
    async with Net(first) as net:
        await names(net)
        for models, fetches in ((("m",), 1), (("m", "y"), 2)):
            first.models = models
            first.seal()
            net.clock.now += 31
            await names(net)
            await until(lambda: net.directory._lookups["m"].search is None)
            assert first.offer_calls == fetches
        assert await names(net, "y") == {1}


async def test_a_dead_executor_holds_nobody_up() -> None:
    dead, alive = FakeExecutor(1, reach=asyncio.Event()), FakeExecutor(2)
    async with Net(dead, alive, grace_seconds=0.001) as net:
        assert await names(net) == {2}
        assert isinstance(dead.reach, asyncio.Event)
        dead.reach.set()
        await until(lambda: dead.offer_calls == 1)
        await until(lambda: net.directory._lookups["m"].search is None)
        assert await names(net) == {1, 2}


async def test_the_reason_why_an_executor_is_no_candidate_is_told() -> None:
    async with Net(FakeExecutor(1, reach=RetryElsewhere("nobody answers at port 1"))) as net:
        found = await net.directory.candidates("m")
        assert (found.candidates, found.announced, found.problems) == ((), 1, ("nobody answers at port 1",))


async def test_that_an_executor_cannot_be_reached_is_remembered_briefly() -> None:
    dead = FakeExecutor(1, models=("m", "y"), reach=RetryElsewhere("nobody there"))
    async with Net(dead) as net:
        assert await names(net, "m") == set()
        assert await names(net, "y") == set()
        assert dead.dials == 1
        net.clock.now += 2
        dead.reach = None
        assert await names(net, "y") == {1}


async def test_that_nobody_serves_a_model_is_remembered_briefly() -> None:
    first = FakeExecutor(1)
    async with Net(first) as net:
        assert await names(net, "y") == set()
        first.models = ("m", "y")
        first.seal()
        assert await names(net, "y") == set()
        net.clock.now += 2
        assert await names(net, "y") == {1}


async def test_an_offer_that_is_not_the_announced_one_is_refused() -> None:
    first = FakeExecutor(1)
    first.fingerprint = bytes(32)
    async with Net(first) as net:
        found = await net.directory.candidates("m")
        assert found.candidates == ()
        assert "another offer" in found.problems[0]


async def test_somebody_elses_offer_is_refused() -> None:
    thief, honest = FakeExecutor(1), FakeExecutor(2)
    thief.sealed, thief.fingerprint = honest.sealed, honest.fingerprint
    async with Net(thief) as net:
        found = await net.directory.candidates("m")
        assert found.candidates == ()
        assert "did not sign" in found.problems[0]


async def test_an_offer_without_end_is_refused() -> None:
    first = FakeExecutor(1)
    first.sealed = b"x" * (1 << 20)
    async with Net(first) as net:
        assert "without end" in (await net.directory.candidates("m")).problems[0]


async def test_an_expired_offer_counts_for_nothing() -> None:
    async with Net(FakeExecutor(1, expires=1010)) as net:
        assert await names(net) == {1}
        net.clock.now = 1010
        assert await names(net) == set()


async def test_a_model_that_is_announced_but_no_longer_offered_is_no_candidate() -> None:
    first = FakeExecutor(1)
    first.models = ("y",)
    first.seal()
    first.models = ("m",)
    async with Net(first) as net:
        found = await net.directory.candidates("m")
        assert found.problems == (f"{checksum(first.address)} no longer offers m",)


async def test_an_empty_answer_of_the_network_does_not_wipe_what_is_known() -> None:
    first = FakeExecutor(1)
    async with Net(first) as net:
        await names(net)
        net.dht.hidden = {first.address}
        net.clock.now += 31
        await names(net)
        await until(lambda: net.directory._lookups["m"].search is None)
        assert await names(net) == {1}


async def test_one_that_is_doubted_is_asked_again() -> None:
    first = FakeExecutor(1)
    async with Net(first) as net:
        await names(net)
        net.directory.doubt(first.address)
        assert await names(net) == {1}
        assert first.offer_calls == 2


async def test_all_models_of_all_executors_are_listed() -> None:
    async with Net(FakeExecutor(1), FakeExecutor(2, models=("m", "x"))) as net:
        listed = sorted((offer.output_price, offer.id) for _, offer in await net.directory.models())
        assert listed == [(1, "m"), (2, "m"), (2, "x")]
