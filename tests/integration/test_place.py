"""How an actor reaches another one of its node; that one is scripted, there is no cluster."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray

from lloom.actors import place
from lloom.actors.place import FellowAway, Place


class Cluster:
    """Whose actors say what `script` holds: errors are raised. `looks`: how often it was asked for one."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.looks = 0

    def get_actor(self, name: str, namespace: str) -> Any:
        assert (name, namespace) == ("accounting", "aa")
        self.looks += 1
        if not self.script:
            raise ValueError("no such actor")
        return SimpleNamespace(say=SimpleNamespace(remote=self.say))

    async def say(self) -> Any:
        answer = self.script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    place._handles.clear()


def cluster(monkeypatch: pytest.MonkeyPatch, *script: Any) -> Cluster:
    found = Cluster(*script)
    monkeypatch.setattr(ray, "get_actor", found.get_actor)
    return found


async def say() -> Any:
    settings = cast(Any, None)
    here = Place(settings, cast(Any, b"\xaa"), "", "", "", "worker")
    return await here.ask("accounting", "say", seconds=10)


async def test_who_was_found_is_looked_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    it = cluster(monkeypatch, 1, 2)
    assert [await say(), await say()] == [1, 2]
    assert it.looks == 1


async def test_who_does_not_answer_is_looked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    it = cluster(monkeypatch, 1, ray.exceptions.RayActorError(), 2)
    assert await say() == 1
    with pytest.raises(FellowAway, match="accounting does not answer"):
        await say()
    assert await say() == 2
    assert it.looks == 2


async def test_who_is_not_there_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(monkeypatch)
    with pytest.raises(FellowAway, match="accounting does not answer"):
        await say()
