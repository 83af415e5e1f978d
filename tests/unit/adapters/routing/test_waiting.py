"""Requests that wait, however many, are not looked at again and again; and nobody is forgotten."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from functools import partial
from typing import Any

import msgspec

from lloom.adapters.routing.waiting import Waiting
from lloom.core.identity import NodeId
from lloom.core.offer import Endpoint
from lloom.core.routing.candidate import Choice, Nobody
from tests.unit.adapters.routing_support import SETTINGS, until

CROWD = 300
QUEUE = msgspec.structs.replace(SETTINGS, queue=2 * CROWD)
SOMEBODY: Any = object()


class Places:
    """What is free at executors, each known by a letter; and who got it, in turn."""

    def __init__(self) -> None:
        self.waiting = Waiting()
        self.free: Counter[str] = Counter()
        self.looks = 0
        self.served: list[str] = []

    def ask(self, able: str, name: str = "") -> asyncio.Task[None]:
        """One request, for an executor in `able`."""
        return asyncio.create_task(self._ask(able, name or able))

    async def enough(self, able: str) -> None:
        """A whole crowd of them, who wait."""
        before = len(self.waiting)
        self.asked = [self.ask(able) for _ in range(CROWD)]
        await until(lambda: len(self.waiting) == before + CROWD)

    def give(self, executor: str) -> None:
        self.free[executor] += 1
        self.waiting.changed("m")

    async def _ask(self, able: str, name: str) -> None:
        places = frozenset(((NodeId(each.encode() * 20), Endpoint("127.0.0.1", 1), "m"), 1) for each in able)
        await self.waiting.wait(("m",), "", places, partial(self._look, able), QUEUE, math.inf)
        self.free[next(each for each in able if self.free[each])] -= 1
        self.served.append(name)

    def _look(self, able: str) -> Choice | Nobody:
        self.looks += 1
        return SOMEBODY if any(self.free[each] for each in able) else Nobody("all are busy", "busy", soon=True)


async def test_a_place_that_is_free_costs_the_same_looks_however_many_wait_for_it() -> None:
    places = Places()
    await places.enough("x")
    for number in range(CROWD):
        places.give("x")
        await until(lambda number=number: len(places.served) > number)  # type: ignore[misc]
    assert places.looks <= 4 * CROWD
    assert len(places.waiting) == 0


async def test_who_can_go_elsewhere_does_not_wait_behind_a_crowd_that_cannot() -> None:
    places = Places()
    await places.enough("x")
    late = places.ask("xy", "late")
    places.give("y")
    await late
    assert places.served == ["late"]
    assert places.looks <= 2 * CROWD
    for each in places.asked:
        each.cancel()


async def test_whose_turn_comes_as_it_leaves_passes_it_on() -> None:
    places = Places()
    first = places.ask("x", "first")
    second = places.ask("x", "second")
    await until(lambda: len(places.waiting) == 2)
    await asyncio.sleep(0)
    places.give("x")
    first.cancel()
    await until(second.done)
    assert places.served == ["second"]
