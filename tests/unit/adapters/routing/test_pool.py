from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lloom.adapters.routing import pool as pool_module
from lloom.adapters.routing.pool import FIRST_PAUSE, LONGEST_PAUSE, Pool
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId
from lloom.core.offer import Endpoint
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


def unreachable(number: int = 1) -> FakeExecutor:
    return FakeExecutor(number, reach=RetryElsewhere("nobody there", code="unreachable"))


async def test_who_was_not_reached_is_not_dialled_again_at_once_and_callers_fail_fast() -> None:
    executor = unreachable()
    pool = Pool(FakeDht(executor).dial, 4)
    for _ in range(5):
        with pytest.raises(RetryElsewhere, match="nobody there"):
            await pool.connection(executor.address, executor.endpoint)
    assert executor.dials == 1
    await pool.close()


async def test_the_pause_doubles_up_to_its_limit_and_is_forgotten_with_the_first_success(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    executor, now = unreachable(), 0.0
    pool = Pool(FakeDht(executor).dial, 4)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    pauses = []
    for _ in range(8):
        with pytest.raises(RetryElsewhere):
            await pool.connection(executor.address, executor.endpoint)
        (failure,) = pool._failed.values()
        pauses.append(failure.until - now)
        now = failure.until
    assert pauses[:2] == pytest.approx([FIRST_PAUSE, 2 * FIRST_PAUSE])
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE)
    executor.reach = None
    await pool.connection(executor.address, executor.endpoint)
    assert not pool._failed
    await pool.close()


async def test_any_endpoint_will_do_and_a_dead_one_makes_nobody_wait() -> None:
    good = FakeExecutor(1)
    dead = Endpoint("203.0.113.9", 1)
    dialled: list[Endpoint] = []

    async def dial(endpoint: Endpoint, executor: NodeId) -> Any:
        dialled.append(endpoint)
        if endpoint == dead:
            raise RetryElsewhere("nobody there", code="unreachable")
        return await FakeDht(good).dial(endpoint, executor)

    pool = Pool(dial, 4)
    await pool.any(good.address, [dead, good.endpoint])
    assert dialled == [dead, good.endpoint]
    with pytest.raises(RetryElsewhere, match="nobody there"):
        await pool.any(good.address, [dead])
    with pytest.raises(RetryElsewhere, match="no address"):
        await pool.any(good.address, [])
    await pool.close()


async def test_a_silent_endpoint_gets_company(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "STAGGER_SECONDS", 0)
    good = FakeExecutor(1)
    silent = Endpoint("203.0.113.9", 1)

    async def dial(endpoint: Endpoint, executor: NodeId) -> Any:
        if endpoint == silent:
            await asyncio.Event().wait()
        return await FakeDht(good).dial(endpoint, executor)

    pool = Pool(dial, 4)
    async with asyncio.timeout(10):
        await pool.any(good.address, [silent, good.endpoint])
        await pool.close()


async def test_warming_dials_whom_nothing_is_open_to_and_leaves_half_the_places_free() -> None:
    people = [FakeExecutor(number) for number in range(1, 7)]
    pool = Pool(FakeDht(*people).dial, 6)
    pool.warm((one.address, one.endpoint) for one in people)
    await turns()
    assert [one.dials for one in people] == [1, 1, 1, 0, 0, 0]
    pool.warm([(people[0].address, people[0].endpoint)])
    await turns()
    assert people[0].dials == 1
    await pool.close()


async def turns() -> None:
    """Lets the loop go round a few times."""
    for _ in range(10):
        await asyncio.sleep(0)
