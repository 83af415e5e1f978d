from __future__ import annotations

import asyncio

import pytest

from lloom.adapters.routing.pool import Pool
from lloom.core.errors import RetryElsewhere
from tests.unit.adapters.routing_support import FakeDht, FakeExecutor, until


async def test_concurrent_callers_share_one_dial() -> None:
    gate = asyncio.Event()
    executor = FakeExecutor(1, reach=gate)
    pool = Pool(FakeDht(executor).dial, 4)
    callers = [asyncio.create_task(pool.connection(executor.address, executor.endpoint)) for _ in range(5)]
    await until(lambda: executor.dials == 1)
    gate.set()
    assert len(set(await asyncio.gather(*callers))) == 1
    assert await pool.connection(executor.address, executor.endpoint) is callers[0].result()
    assert executor.dials == 1
    await pool.close()


async def test_a_caller_that_gives_up_does_not_take_the_dial_with_it() -> None:
    gate = asyncio.Event()
    executor = FakeExecutor(1, reach=gate)
    pool = Pool(FakeDht(executor).dial, 4)
    first, second = (asyncio.create_task(pool.connection(executor.address, executor.endpoint)) for _ in range(2))
    await until(lambda: executor.dials == 1)
    first.cancel()
    gate.set()
    assert (await second).peer == executor.address
    assert first.cancelled()
    await pool.close()


async def test_a_failed_dial_fails_all_who_wait_and_is_tried_again_by_the_next() -> None:
    executor = FakeExecutor(1, reach=RetryElsewhere("nobody there"))
    pool = Pool(FakeDht(executor).dial, 4)
    for expected in (1, 2):
        with pytest.raises(RetryElsewhere, match="nobody there"):
            await pool.connection(executor.address, executor.endpoint)
        assert executor.dials == expected
    await pool.close()


@pytest.mark.parametrize("state", ["closed", "leaving"])
async def test_a_connection_that_ends_is_replaced(state: str) -> None:
    executor = FakeExecutor(1)
    pool = Pool(FakeDht(executor).dial, 4)
    first = await pool.connection(executor.address, executor.endpoint)
    setattr(first.session, state, True)
    assert await pool.connection(executor.address, executor.endpoint) is not first
    await pool.close()


async def test_a_closed_connection_is_dropped_at_once() -> None:
    executor = FakeExecutor(1)
    pool = Pool(FakeDht(executor).dial, 4)
    connection = await pool.connection(executor.address, executor.endpoint)
    assert pool.connections == 1
    connection.closed.set()
    await until(lambda: pool.connections == 0)
    await pool.close()


async def test_the_connection_idle_for_longest_makes_room() -> None:
    executors = [FakeExecutor(number) for number in (1, 2, 3)]
    pool = Pool(FakeDht(*executors).dial, 2)
    first, second = [await pool.connection(each.address, each.endpoint) for each in executors[:2]]
    first.streams = 1  # type: ignore[misc]
    await pool.connection(executors[2].address, executors[2].endpoint)
    await second.closed.wait()
    assert not first.closed.is_set()
    await pool.close()


async def test_there_is_no_room_while_all_are_in_use() -> None:
    executors = [FakeExecutor(number) for number in (1, 2)]
    pool = Pool(FakeDht(*executors).dial, 1)
    busy = await pool.connection(executors[0].address, executors[0].endpoint)
    busy.streams = 1  # type: ignore[misc]
    with pytest.raises(RetryElsewhere, match=r"bridge\.connections"):
        await pool.connection(executors[1].address, executors[1].endpoint)
    await pool.close()


async def test_closing_gives_up_dials_and_closes_connections() -> None:
    waiting, there = FakeExecutor(1, reach=asyncio.Event()), FakeExecutor(2)
    pool = Pool(FakeDht(waiting, there).dial, 4)
    connection = await pool.connection(there.address, there.endpoint)
    dial = asyncio.create_task(pool.connection(waiting.address, waiting.endpoint))
    await until(lambda: waiting.dials == 1)
    await pool.close()
    assert connection.closed.is_set()
    with pytest.raises(asyncio.CancelledError):
        await dial
