"""Admission by places, rates and pauses, on a clock that only the gate's own waiting moves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from lloom.adapters.serving.gate import Gate
from lloom.core.errors import CallerFault, RetryElsewhere
from lloom.core.rates import Limits
from lloom.core.settings import ExecutorSettings, Resources

SETTINGS: dict[str, Any] = {
    "workers": 1,
    "worker": Resources(num_cpus=0, num_gpus=0),
    "max_body": 1,
    "bodies": 1,
    "queue": 4,
    "queue_seconds": 10,
    "request_seconds": 60,
    "requests_per_client": 8,
    "replay_bytes": 0,
    "replay_seconds": 1,
    "discovery_seconds": 60,
    "discovered_models": 16,
}


class Clock:
    """Seconds; whoever sleeps moves it on."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        self.held = asyncio.Event()
        self.held.set()
        self.reached = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.reached.set()
        await self.held.wait()
        self.now += seconds
        await asyncio.sleep(0)


def gate(limits: Limits, **changes: Any) -> tuple[Gate, Clock]:
    clock = Clock()
    return Gate(limits, ExecutorSettings(**{**SETTINGS, **changes}), lambda: clock.now, clock.sleep), clock


async def visit(
    gate: Gate,
    tokens: int = 0,
    spent: int | None = None,
    error: Exception | None = None,
    meanwhile: Awaitable[object] | None = None,
) -> None:
    async with gate.place(tokens) as place:
        place.spent = spent
        if meanwhile is not None:
            await meanwhile
        if error is not None:
            raise error


def limited(retry_after: float | None, code: str = "backend_busy") -> RetryElsewhere:
    return RetryElsewhere("the backend is at its rate limit", status=429, code=code, retry_after=retry_after)


async def refused(gate: Gate, tokens: int = 0) -> float:
    """After how long one who is refused may come again."""
    with pytest.raises(RetryElsewhere) as raised:
        await visit(gate, tokens)
    assert (raised.value.status, raised.value.code) == (429, "busy")
    assert raised.value.retry_after is not None
    return raised.value.retry_after


async def test_requests_wait_for_their_turn_and_are_refused_if_it_is_far() -> None:
    door, clock = gate(Limits(8, requests=12))
    await visit(door)
    await visit(door)
    assert clock.slept == [round(60 / 11, 6)]
    door, clock = gate(Limits(8, requests=1))
    await visit(door)
    assert 60 < await refused(door) < 70
    clock.now += 70
    await visit(door)


async def test_several_workers_share_what_is_allowed() -> None:
    door, clock = gate(Limits(8, requests=24), workers=2)
    await visit(door)
    await visit(door)
    assert clock.slept == [round(60 / 11, 6)]


async def test_tokens_are_reserved_before_and_settled_after() -> None:
    door, _ = gate(Limits(8, tokens=6000))
    assert door.counts_tokens
    await visit(door, tokens=500, spent=20)
    await visit(door, tokens=480, spent=4000)
    assert 35 < await refused(door, tokens=500) < 50


async def test_what_is_unknown_stays_reserved() -> None:
    door, clock = gate(Limits(8, tokens=6000), queue_seconds=1)
    await visit(door, tokens=500)
    assert 5 < await refused(door, tokens=500) < 6
    assert clock.slept == []


async def test_who_is_refused_or_leaves_takes_nothing() -> None:
    door, clock = gate(Limits(1, requests=12, tokens=6000))
    async with door.place(100):
        task = asyncio.create_task(visit(door, 100))
        await clock.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    clock.slept.clear()
    await visit(door, 500)
    assert sum(clock.slept) < 1e-6


async def test_a_backend_that_is_at_its_limit_is_left_alone_as_long_as_it_says() -> None:
    door, clock = gate(Limits(8))
    with pytest.raises(RetryElsewhere):
        await visit(door, error=limited(30))
    assert await refused(door) == 30
    clock.now += 25
    await visit(door)
    assert clock.slept == [5]


async def test_who_waits_already_waits_on_when_the_backend_asks_for_a_pause() -> None:
    door, clock = gate(Limits(8, requests=12))
    clock.held.clear()
    first = asyncio.create_task(visit(door, error=limited(9), meanwhile=clock.reached.wait()))
    second = asyncio.create_task(visit(door))
    with pytest.raises(RetryElsewhere):
        await first
    clock.held.set()
    await second
    assert clock.now == 109


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (limited(None), 1),
        (limited(20, "backend_error"), 20),
        (limited(None, "backend_error"), 0),
        (limited(20, "payment_required"), 0),
        (CallerFault("no"), 0),
    ],
)
async def test_only_the_backends_own_word_makes_a_pause(error: Exception, pause: float) -> None:
    door, clock = gate(Limits(8))
    with pytest.raises(type(error)):
        await visit(door, error=error)
    assert max(0.0, door._rested - clock.now) == pause


async def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    door, _ = gate(Limits(8))

    async def longer() -> None:
        with pytest.raises(RetryElsewhere):
            await visit(door, error=limited(30))

    with pytest.raises(RetryElsewhere):
        await visit(door, error=limited(2), meanwhile=longer())
    assert await refused(door) == 30


async def test_a_full_queue_refuses_whoever_would_wait_for_the_rate() -> None:
    door, _ = gate(Limits(8, requests=12), queue=0)
    await visit(door)
    assert round(await refused(door), 3) == round(60 / 11, 3)


async def test_who_finds_no_place_waits_for_one_unless_the_queue_is_full() -> None:
    it, _ = gate(Limits(1), queue=1)
    leave = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        inside = group.create_task(visit(it, meanwhile=leave.wait()))
        waiting = group.create_task(visit(it))
        await asyncio.sleep(0)
        assert it.running == 1
        with pytest.raises(RetryElsewhere, match="queue is full"):
            await visit(it)
        assert not waiting.done()
        leave.set()
    assert inside.done()
    assert it.running == 0


async def test_who_finds_no_place_for_too_long_is_sent_away() -> None:
    it, _ = gate(Limits(1), queue_seconds=0.01)
    async with it.place():
        with pytest.raises(RetryElsewhere, match="stayed busy"):
            await visit(it)
    await visit(it)
