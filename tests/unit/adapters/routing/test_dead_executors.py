"""An executor that dies without a goodbye is still announced for a while; a client waits for it once, and not again."""

from __future__ import annotations

import asyncio
from typing import Any

from lloom.core.errors import RetryElsewhere
from tests.integration.virtual_support import in_virtual_time
from tests.unit.adapters.routing_support import FakeExecutor, Net, request

CONNECT_SECONDS = 5.0
MINUTE = 60.0
QUICK = 0.1


def vanish(net: Net, *executors: FakeExecutor) -> None:
    """From now on nothing comes from there, not even a refusal; whoever dials waits until the time is over."""
    gone = {executor.address: executor for executor in executors}
    for executor in executors:
        executor.dials = 0
        for connection in executor.connections:
            connection.break_off()
    alive = net.dht.dial

    async def dial(endpoint: Any, who: Any) -> Any:
        if who not in gone:
            return await alive(endpoint, who)
        gone[who].dials += 1
        await asyncio.sleep(CONNECT_SECONDS)
        raise RetryElsewhere("no answer", code="unreachable")

    net.pool._dial = dial


async def ask(net: Net) -> tuple[float, Any]:
    """How long it took until the first content came, and from whom."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = await net.router.ask(request())
    took = loop.time() - began
    async for _ in answer:
        pass
    return took, answer.executor


@in_virtual_time
async def test_of_all_requests_while_a_dead_executor_is_still_announced_one_waits_for_it() -> None:
    dying, living = FakeExecutor(1), FakeExecutor(2)
    async with Net(dying, living) as net:
        assert (await ask(net))[1] == dying.address, "it is the cheapest"
        vanish(net, dying)
        waited = []
        for _ in range(15 * 12):
            took, who = await ask(net)
            assert who == living.address
            waited.append(took)
            await asyncio.sleep(CONNECT_SECONDS)
        assert sum(each > QUICK for each in waited) <= 1
        assert max(waited) <= CONNECT_SECONDS + QUICK
        assert 1 <= dying.dials <= 12, "it is looked for behind the requests, ever more rarely"


@in_virtual_time
async def test_many_requests_at_once_wait_for_a_dead_executor_together() -> None:
    dying, living = FakeExecutor(1), FakeExecutor(2)
    async with Net(dying, living) as net:
        await ask(net)
        vanish(net, dying)
        answers = await asyncio.gather(*(ask(net) for _ in range(20)))
        assert {who for _, who in answers} == {living.address}
        assert dying.dials == 1
        assert (await ask(net))[0] <= QUICK


@in_virtual_time
async def test_a_client_that_comes_later_waits_for_no_dead_executor_at_all() -> None:
    dead, living = FakeExecutor(1), FakeExecutor(2)
    async with Net(dead, living, grace_seconds=QUICK / 2) as net:
        vanish(net, dead)
        for _ in range(20):
            took, who = await ask(net)
            assert (took <= QUICK, who) == (True, living.address)
            await asyncio.sleep(MINUTE)


@in_virtual_time
async def test_free_identities_that_are_nobody_fail_no_request_while_somebody_is_vouched_for() -> None:
    nobody, somebody = [FakeExecutor(number) for number in range(1, 60)], FakeExecutor(100)
    async with Net(*nobody, somebody) as net:
        await net.directory.candidates("m")
        vanish(net, *nobody)
        net.outcomes.reputations.said(somebody.address, 0.75)
        waited = []
        for _ in range(40):
            took, who = await ask(net)
            assert who == somebody.address, "though it is the dearest"
            waited.append(took)
        assert max(waited) <= CONNECT_SECONDS + QUICK, "for one of them at the most"
        assert sum(each > QUICK for each in waited) <= 20


@in_virtual_time
async def test_an_executor_that_moved_is_asked_where_it_is_now_by_the_same_request() -> None:
    executor = FakeExecutor(1)
    async with Net(executor) as net:
        await ask(net)
        old, alive = executor.endpoint, net.dht.dial
        executor.connections[-1].break_off()
        executor.number = 2
        executor.seal()

        async def dial(endpoint: Any, who: Any) -> Any:
            if endpoint == old:
                raise RetryElsewhere("the relay is gone", code="unreachable")
            return await alive(endpoint, who)

        net.pool._dial = dial
        took, _ = await ask(net)
        assert took <= QUICK
