"""The life of an actor: up, stop, and what ends it."""

from __future__ import annotations

import asyncio
import sys

import pytest

from lloom.actors import base
from lloom.actors.base import Actor, patience, worn
from tests.unit.actors.actor_support import FakePlace, FakeTime, turns, until


class Scripted(Actor):
    """Comes up when `start` is set, and closes what it built."""

    def __init__(self) -> None:
        super().__init__(FakePlace().place)
        self.start = asyncio.Event()
        self.error: Exception | None = None
        self.runs = 0
        self.closed = 0

    async def run(self) -> None:
        self.runs += 1
        try:
            await self.start.wait()
            if self.error is not None:
                raise self.error
            self.up("works")
            await self.stopping.wait()
        finally:
            await asyncio.sleep(0)  # a goodbye
            self.closed += 1


async def test_it_is_ready_when_it_is_up_and_ends_when_it_is_asked_to() -> None:
    actor = Scripted()
    serving, ready = asyncio.create_task(actor.serve()), asyncio.create_task(actor.ready())
    await turns()
    assert not ready.done()
    actor.start.set()
    assert await ready == "works"
    await actor.stop()
    await serving
    assert actor.closed == 1


async def test_one_that_is_still_starting_stops_at_once_and_cleans_up() -> None:
    actor = Scripted()
    serving = asyncio.create_task(actor.serve())
    await until(lambda: actor.runs == 1)
    await actor.stop()
    async with asyncio.timeout(10):
        await serving
    assert actor.closed == 1


async def test_one_that_was_stopped_before_it_began_does_not_begin() -> None:
    actor = Scripted()
    await actor.stop()
    await actor.serve()
    assert actor.runs == 0


async def test_what_fails_is_raised_and_it_may_be_served_again() -> None:
    actor = Scripted()
    actor.start.set()
    actor.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await actor.serve()
    actor.error = None
    serving = asyncio.create_task(actor.serve())
    assert await actor.ready() == "works"
    await actor.stop()
    await serving
    assert (actor.runs, actor.closed) == (2, 2)


async def test_after_a_failure_it_is_not_ready() -> None:
    class Breaking(Scripted):
        async def run(self) -> None:
            self.up("works")
            raise ZeroDivisionError

    actor = Breaking()
    with pytest.raises(ZeroDivisionError):
        await actor.serve()
    ready = asyncio.create_task(actor.ready())
    await turns()
    assert not ready.done()
    ready.cancel()


async def test_a_life_that_is_cancelled_from_outside_ends_its_work() -> None:
    actor = Scripted()
    serving = asyncio.create_task(actor.serve())
    await until(lambda: actor.runs == 1)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert actor.closed == 1


async def test_patience_ends_with_the_event_or_the_time() -> None:
    event = asyncio.Event()
    await patience(event, 0)
    event.set()
    await patience(event, 3600)


@pytest.mark.parametrize("later", range(3))
async def test_patience_that_is_cancelled_as_the_event_comes_is_cancelled(later: int) -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(patience(event, 3600))
    await turns()
    event.set()
    for _ in range(later):
        await asyncio.sleep(0)
    too_late = not waiting.cancel()
    await asyncio.wait((waiting,))
    assert waiting.cancelled() is not too_late


@pytest.mark.parametrize(("passed", "expected"), [(0, False), (49, False), (50, True), (1000, True), (-1, True)])
def test_what_lives_for_a_time_is_renewed_at_half_of_it_or_when_the_clock_was_set_back(
    passed: float, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "time", FakeTime(wall=500.0 + passed))
    assert worn(500.0, 100.0) is expected


async def test_a_limit_of_recursion_that_the_stack_cannot_bear_is_taken_back() -> None:
    """msgspec would end the whole process at a deeply nested message."""
    sys.setrecursionlimit(100_000)
    actor = Scripted()
    await actor.stop()
    await actor.serve()
    assert sys.getrecursionlimit() == base.RECURSION_LIMIT
