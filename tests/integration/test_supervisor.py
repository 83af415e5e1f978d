"""What happens to an actor that fails, does not answer, or is asked to stop; the actor itself is scripted, there is no Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray

from lloom.actors import supervisor
from lloom.actors.base import Actor
from lloom.actors.place import FellowAway, Place
from lloom.actors.supervisor import ActorFailed, Part, Supervised
from lloom.core.errors import ConfigError


class Handle:
    """Ray's handle of an actor: `serve` plays `lives`, `stop` waits for `answers`."""

    def __init__(self, *lives: Exception | None) -> None:
        self.lives = list(lives)
        self.served = 0
        self.stopping = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    def __getattr__(self, name: str) -> Any:
        method: Callable[[], Awaitable[Any]] = getattr(self, f"do_{name}")
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=method), remote=method)

    async def do_serve(self) -> None:
        self.served += 1
        if self.lives:
            error = self.lives.pop(0)
            if error is not None:
                raise error
            return
        await self.stopping.wait()

    async def do_stop(self) -> None:
        await self.answers.wait()
        self.stopping.set()

    async def do_ready(self) -> str:
        while self.lives:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
        return "is up"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_SECONDS", 0)


def supervised(handle: Handle, monkeypatch: pytest.MonkeyPatch) -> tuple[Supervised, list[str]]:
    told: list[str] = []
    monkeypatch.setattr(Supervised, "_spawn", lambda _: handle)
    place = SimpleNamespace(title="actor", name="actor", settings=SimpleNamespace(ray=SimpleNamespace(restarts=2)))
    return Supervised(Part(cast(Place, place), Actor), told.append), told


def raised(cause: Exception) -> Exception:
    """`cause` as it comes out of an actor."""
    error = ray.exceptions.RayTaskError("serve", "Traceback", cause, proctitle="actor", pid=1, ip="127.0.0.1")
    return cast(Exception, error.as_instanceof_cause())


async def test_it_is_served_until_it_is_asked_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    actor, told = supervised(Handle(), monkeypatch)
    assert await actor.ready() == "is up"
    await actor.stop(10)
    assert actor.work.done()
    assert actor.work.exception() is None
    assert told == []


async def test_what_fails_is_started_again_and_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Handle(raised(FellowAway("the executor\ndoes not answer")))
    actor, told = supervised(handle, monkeypatch)
    assert await actor.ready() == "is up"
    await actor.stop(10)
    assert handle.served == 2
    assert told == ["actor failed (FellowAway: the executor); starting it again"]


async def test_what_fails_in_a_task_group_is_told_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    group = ExceptionGroup("unhandled errors in a TaskGroup", [ZeroDivisionError("division by zero")])
    actor, told = supervised(Handle(raised(group)), monkeypatch)
    await actor.ready()
    await actor.stop(10)
    assert told == ["actor failed (ZeroDivisionError: division by zero); starting it again"]


@pytest.mark.parametrize("wrap", [lambda error: error, lambda error: ExceptionGroup("two levels", [error])])
async def test_a_wrong_configuration_is_not_tried_again(
    wrap: Callable[[Exception], Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    actor, told = supervised(Handle(raised(wrap(ConfigError("no such port"))), None), monkeypatch)
    with pytest.raises(ConfigError, match="no such port"):
        await actor.ready()
    assert told == []
    await actor.stop(10)


async def test_what_fails_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [raised(ZeroDivisionError("again")) for _ in range(3)]
    actor, told = supervised(Handle(*failures, None), monkeypatch)
    with pytest.raises(ActorFailed, match="actor failed 3 times in a row: ZeroDivisionError: again"):
        await actor.work
    assert len(told) == 2


async def test_one_that_does_not_answer_is_left_to_its_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the time that ran out raised, nothing after it would be stopped."""
    handle = Handle()
    handle.answers.clear()
    actor, _ = supervised(handle, monkeypatch)
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await actor.stop(0.01)
    assert actor.work.cancelled()
