"""What is served follows what backends say: one may come, go, and change its mind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator

import pytest
from loguru import logger

from lloom.adapters.llm import menu as module
from lloom.adapters.llm.menu import Menu
from lloom.core.api.request import Operation
from lloom.core.errors import RetryElsewhere
from lloom.core.lineup import Lineup, Served
from lloom.core.offer import ModelOffer
from lloom.core.rates import Limits


class Backend:
    """An engine that says what it is told to say."""

    def __init__(self, name: str, *models: str) -> None:
        self.name = name
        self.limits = Limits(1)
        self.models: tuple[str, ...] | None = models
        self.remarks: tuple[str, ...] = ()
        self.looks = 0

    async def start(self) -> None: ...

    async def look(self) -> Lineup:
        self.looks += 1
        await asyncio.sleep(0)
        if self.models is None:
            raise RetryElsewhere("the backend cannot be reached", status=503, code="backend_unreachable")
        return Lineup({name: Served(name, offer(name, self.name)) for name in self.models}, self.remarks)

    async def stream(self, operation: Operation, model: str, body: bytes) -> AsyncGenerator[bytes, None]:
        raise NotImplementedError
        yield b""

    async def close(self) -> None: ...


def offer(name: str, backend: str) -> ModelOffer:
    return ModelOffer(id=name, context=1, max_output=1, parallel=1, encoding="o200k_base", backend=backend)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the owner reads."""
    lines: list[str] = []
    number = logger.add(lambda message: lines.append(str(message.record["message"])), level="INFO")
    yield lines
    logger.remove(number)


async def test_it_has_every_backends_models_and_the_first_of_two_with_the_same() -> None:
    one, two = Backend("one", "a", "b"), Backend("two", "b", "c")
    menu = Menu([one, two], 60)
    await menu.look()
    assert {model: engine.name for model, (engine, _) in menu.items()} == {"a": "one", "b": "one", "c": "two"}
    assert menu.changed.is_set()


async def test_a_change_is_noticed_and_no_change_is_none() -> None:
    one = Backend("one", "a")
    menu = Menu([one], 60)
    await menu.look()
    menu.changed.clear()
    await menu.look()
    assert not menu.changed.is_set()
    one.models = ("a", "b")
    await menu.look()
    assert menu.changed.is_set()
    assert set(menu) == {"a", "b"}


async def test_a_backend_that_is_not_there_holds_up_nobody_and_comes_later(said: list[str]) -> None:
    late, there = Backend("late"), Backend("there", "a")
    late.models = None
    menu = Menu([late, there], 60)
    await menu.look()
    await menu.look()
    assert set(menu) == {"a"}
    assert [line for line in said if "late" in line] == [
        "llm=late: the backend cannot be reached; its models will be offered as soon as it is there"
    ]
    late.models = ("b",)
    menu.changed.clear()
    await menu.look()
    assert set(menu) == {"a", "b"}
    assert menu.changed.is_set()
    assert "llm=late is there: it serves b" in said


async def test_one_hiccup_withdraws_nothing_and_a_second_one_does(said: list[str]) -> None:
    one = Backend("one", "a")
    menu = Menu([one], 60)
    await menu.look()
    one.models = None
    await menu.look()
    assert set(menu) == {"a"}
    await menu.look()
    assert set(menu) == set()
    assert any("withdrawn until it is back" in line for line in said)


async def test_who_is_away_is_asked_ever_more_rarely() -> None:
    one = Backend("one")
    menu = Menu([one], 60)
    await menu.look()
    assert menu.patience("one") == 60
    one.models = None
    waits = []
    for _ in range(9):
        await menu.look()
        waits.append(menu.patience("one"))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    one.models = ("a",)
    await menu.look()
    assert menu.patience("one") == 60


async def test_what_the_owner_should_know_is_said_once(said: list[str]) -> None:
    one = Backend("one", "a")
    one.remarks = ("nobody says how long {it} is",)
    menu = Menu([one], 60)
    await menu.look()
    await menu.look()
    assert said.count("nobody says how long {it} is") == 1


async def test_it_goes_on_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY_SECONDS", 0)
    one = Backend("one")
    one.models = None
    menu = Menu([one], 60)
    await menu.look()
    running = asyncio.create_task(menu.run())
    async with asyncio.timeout(10):
        while one.looks < 5:  # noqa: ASYNC110 - the backend counts, it does not tell
            await asyncio.sleep(0)
        one.models = ("a",)
        await menu.changed.wait()
    assert set(menu) == {"a"}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
