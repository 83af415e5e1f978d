"""Executors that fell silent are looked after behind the requests, a few at a time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from lloom.adapters.routing.pool import Pool
from lloom.adapters.routing.revival import AT_ONCE, Revival
from lloom.core.errors import RetryElsewhere
from lloom.core.routing.breaker import State
from lloom.core.routing.candidate import Candidate
from lloom.core.routing.outcomes import Failure, Outcomes
from tests.unit.adapters.routing_support import FakeDht, FakeExecutor

REST = 5.0
GONE = RetryElsewhere("nobody there")


class Ward:
    """Executors of which each fell silent, and whose rest is over."""

    def __init__(self, *executors: FakeExecutor) -> None:
        self.outcomes = Outcomes(600, REST)
        self.pool = Pool(FakeDht(*executors).dial, 64)
        self.revival = Revival(self.pool, self.outcomes)
        self.candidates = [patient(each) for each in executors]
        for each in self.candidates:
            self.outcomes.failed(each.place, self.now - 2 * REST, Failure.SILENT, None)

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def suspects(self, at: float) -> list[bool]:
        return [self.outcomes.state(each.place, at) is State.HALF_OPEN for each in self.candidates]

    async def look(self) -> None:
        """Looks, and lets the dials come to their end."""
        self.revival.look(self.candidates)
        await asyncio.gather(*self.revival._dials.values())


def patient(executor: FakeExecutor) -> Candidate:
    terms = executor.offer.models[0]
    return Candidate(executor.address, executor.endpoint, terms, cast(Any, SimpleNamespace()), b"")


async def test_who_is_back_is_no_suspect_any_more() -> None:
    executor = FakeExecutor(1)
    ward = Ward(executor)
    assert ward.suspects(ward.now) == [True]
    await ward.look()
    assert (executor.dials, ward.suspects(ward.now)) == (1, [False])
    await ward.pool.close()


async def test_who_is_still_away_rests_longer_each_time() -> None:
    executor = FakeExecutor(1, reach=GONE)
    ward = Ward(executor)
    await ward.look()
    place = ward.candidates[0].place
    assert REST < ward.outcomes.rests(place, ward.now) <= 2 * REST
    await ward.look()
    assert executor.dials == 1, "not while it rests"


async def test_whoever_is_well_or_rests_or_lied_is_left_alone() -> None:
    well, resting, liar = executors = [FakeExecutor(number) for number in (1, 2, 3)]
    ward = Ward(*executors)
    healthy, tired, hostile = (each.place for each in ward.candidates)
    ward.outcomes.succeeded(healthy, ward.now, 1, 0.0)
    ward.outcomes.failed(tired, ward.now, Failure.SILENT, None)
    ward.outcomes.failed(hostile, ward.now - REST, Failure.LIED, None)
    await ward.look()
    assert [each.dials for each in (well, resting, liar)] == [0, 0, 0]


async def test_few_are_dialled_at_once_and_nobody_twice() -> None:
    never = asyncio.Event()
    executors = [FakeExecutor(number, reach=never) for number in range(1, AT_ONCE + 3)]
    ward = Ward(*executors)
    for _ in range(3):
        ward.revival.look(ward.candidates)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert [each.dials for each in executors] == [1] * AT_ONCE + [0, 0]
    await ward.revival.close()
    assert not ward.revival._dials
    await ward.pool.close()
