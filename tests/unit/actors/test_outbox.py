"""What waits for another actor is delivered in order and in batches, until it is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from loguru import logger

from lloom.actors import outbox
from lloom.actors.outbox import Outbox
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.settings import AccountingSettings
from tests.money_support import accounting
from tests.unit.actors.actor_support import until


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 0)


@pytest.fixture
def errors() -> Iterator[list[str]]:
    """What was logged as an error."""
    found: list[str] = []
    sink = logger.add(lambda message: found.append(message.record["message"]), level="ERROR")
    yield found
    logger.remove(sink)


def settings(batch: int, backlog: int, report_seconds: float = 1e-9) -> AccountingSettings:
    return accounting(batch=batch, backlog=backlog, batch_seconds=1e-9, report_seconds=report_seconds, ready_seconds=1)


class Fellow:
    """Takes what is delivered while it is `there`; before that it raises what `script` holds."""

    def __init__(self, *script: Exception) -> None:
        self.script = list(script)
        self.got: list[list[int]] = []
        self.calls = 0
        self.there = asyncio.Event()
        self.there.set()

    async def deliver(self, items: list[int]) -> None:
        self.calls += 1
        if self.script:
            raise self.script.pop(0)
        await self.there.wait()
        self.got.append(items)


async def test_everything_comes_in_order_and_in_batches() -> None:
    fellow = Fellow()
    box = Outbox("things", fellow.deliver, settings(batch=3, backlog=100))
    for number in range(8):
        box.put(number)
    await box.close()
    assert fellow.got == [[0, 1, 2], [3, 4, 5], [6, 7]]


async def test_nothing_waits_for_company() -> None:
    fellow = Fellow()
    box = Outbox("things", fellow.deliver, settings(batch=3, backlog=100))
    box.put(1)
    await until(lambda: fellow.got == [[1]])
    await box.close()


async def test_what_fills_a_batch_waits_for_no_more() -> None:
    fellow = Fellow()
    box = Outbox("things", fellow.deliver, settings(batch=3, backlog=100, report_seconds=3600))
    for number in range(8):
        box.put(number)
    await until(lambda: fellow.got == [[0, 1, 2], [3, 4, 5]])
    await box.close()
    assert fellow.got == [[0, 1, 2], [3, 4, 5], [6, 7]]


async def test_while_the_fellow_is_away_the_same_batch_is_tried_again() -> None:
    fellow = Fellow(RetryElsewhere("away"), RetryElsewhere("still away"))
    box = Outbox("things", fellow.deliver, settings(batch=3, backlog=100))
    box.put(1)
    box.put(2)
    await box.close()
    assert (fellow.got, fellow.calls) == ([[1, 2]], 3)


@pytest.mark.parametrize("error", [ZeroDivisionError(), PeerFault("a malformed receipt")])
async def test_what_would_fail_for_ever_is_lost_and_does_not_hold_up_the_rest(
    error: Exception, errors: list[str]
) -> None:
    fellow = Fellow(error)
    box = Outbox("things", fellow.deliver, settings(batch=1, backlog=100))
    box.put(1)
    box.put(2)
    await box.close()
    assert fellow.got == [[2]]
    assert errors == ["things: a batch of 1 was lost"]


async def test_beyond_the_backlog_new_ones_are_dropped(errors: list[str]) -> None:
    fellow = Fellow()
    fellow.there.clear()
    box = Outbox("things", fellow.deliver, settings(batch=1, backlog=2))
    box.put(0)
    await until(lambda: fellow.calls == 1)
    for number in (1, 2, 3):
        box.put(number)
    fellow.there.set()
    await box.close()
    assert fellow.got == [[0], [1], [2]]
    assert errors == ["things: dropped one, for 2 wait already"]


async def test_what_is_left_at_the_end_is_counted_whole(errors: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "CLOSE_SECONDS", 0)
    fellow = Fellow()
    fellow.there.clear()
    box = Outbox("things", fellow.deliver, settings(batch=2, backlog=100))
    for number in range(5):
        box.put(number)
    await until(lambda: fellow.calls == 1)
    await box.close()
    assert errors == ["things: 5 were not delivered before the end"]


async def test_a_close_that_is_cancelled_leaves_no_task_behind() -> None:
    fellow = Fellow()
    fellow.there.clear()
    before = asyncio.all_tasks()
    box = Outbox("things", fellow.deliver, settings(batch=2, backlog=100))
    box.put(1)
    await until(lambda: fellow.calls == 1)
    closing = asyncio.create_task(box.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait((closing,))
    assert asyncio.all_tasks() == before
