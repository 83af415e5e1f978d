"""A second executor behind one that is late."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lloom.core.errors import CallerFault, RetryElsewhere
from lloom.core.routing.hedging import Hedging
from tests.unit.adapters.routing_support import (
    ANSWER,
    DONE,
    END,
    HANG,
    HEL,
    LO,
    ROLE,
    FakeExecutor,
    Net,
    request,
    until,
)

BROKE = RetryElsewhere("broke")


@pytest.fixture(autouse=True)
def _late_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every executor is late as soon as nothing else is to be done."""
    monkeypatch.setattr(Hedging, "delay", lambda *_: 0.0)


def net(*executors: FakeExecutor) -> Net:
    return Net(*executors, hedge_share=1.0)


async def unreached(it: Net, executor: FakeExecutor) -> asyncio.Event:
    """From now on dialling `executor`, whose offer is known, waits for what is given."""
    await it.directory.candidates("m")
    executor.connections[0].break_off()
    executor.reach = asyncio.Event()
    return executor.reach


async def text(answer: Any) -> bytes:
    return b"".join([data async for data in answer])


async def test_whoever_has_content_first_is_kept_and_the_other_one_stops() -> None:
    slow, quick = FakeExecutor(1, script=[ROLE, HANG]), FakeExecutor(2)
    async with net(slow, quick) as it:
        answer = await it.router.ask(request())
        assert (answer.executor, answer.attempts) == (quick.address, 2)
        assert await text(answer) == ROLE + HEL + LO + END
        assert slow.chats[0].cancelled
        assert it.router._means.plans.hedges == 1


async def test_the_first_is_kept_if_it_is_there_before_the_second() -> None:
    first, slow = FakeExecutor(1), FakeExecutor(2, script=[ROLE, HANG])
    async with net(first, slow) as it:
        reached = await unreached(it, first)
        asking = asyncio.create_task(it.router.ask(request()))
        await slow.hung.wait()
        reached.set()
        assert (await asking).executor == first.address
        assert slow.chats[0].cancelled


async def test_a_caller_that_leaves_while_the_later_one_is_ended_stops_both() -> None:
    slow, quick = FakeExecutor(1, script=[ROLE, HANG]), FakeExecutor(2, script=[ROLE, HEL, HANG])
    async with net(slow, quick) as it:
        reached = await unreached(it, quick)
        asking = asyncio.create_task(it.router.ask(request()))
        await slow.hung.wait()
        slow.chats[0].cancel = asking.cancel  # type: ignore[assignment,method-assign]
        reached.set()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert quick.chats[0].cancelled
        assert [it.outcomes.load((each.address, each.endpoint, "m")) for each in (slow, quick)] == [0, 0]


async def test_only_the_model_that_began_goes_on() -> None:
    first = FakeExecutor(1, script=[ROLE, HEL, BROKE], models=("a",))
    slow, other = [FakeExecutor(number, script, models=("b",)) for number, script in ((2, [ROLE, HANG]), (3, ANSWER))]
    async with Net(first, slow, other, hedge_share=1.0, aliases={"x": ("a", "b")}) as it:
        await it.directory.candidates("a")
        first.connections[0].break_off()
        first.reach = asyncio.Event()
        asking = asyncio.create_task(it.router.ask(request(model="x", temperature=0)))
        await slow.hung.wait()
        first.reach.set()
        with pytest.raises(RetryElsewhere, match="broke"):
            await text(await asking)
        assert not other.chats


@pytest.mark.parametrize("script", [[BROKE], [CallerFault("no")]], ids=["fails", "finds fault"])
async def test_one_that_fails_leaves_the_other_one_its_time(script: list[Any]) -> None:
    slow, bad = FakeExecutor(1), FakeExecutor(2, script=script)
    async with net(slow, bad) as it:
        reached = await unreached(it, slow)
        asking = asyncio.create_task(it.router.ask(request()))
        await until(lambda: bool(bad.chats) and not it.outcomes.load((bad.address, bad.endpoint, "m")))
        reached.set()
        assert (await asking).executor == slow.address


async def test_if_both_fail_others_are_tried() -> None:
    bad = [FakeExecutor(number, script=[BROKE]) for number in (1, 2)]
    async with net(*bad, FakeExecutor(3, script=ANSWER)) as it:
        assert (await text(await it.router.ask(request()))).endswith(END)


async def test_a_caller_that_leaves_stops_both() -> None:
    both = [FakeExecutor(number, script=[ROLE, HANG]) for number in (1, 2)]
    async with net(*both) as it:
        asking = asyncio.create_task(it.router.ask(request()))
        for each in both:
            await each.hung.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert all(each.chats[0].cancelled for each in both)
        assert not any(it.outcomes.load((each.address, each.endpoint, "m")) for each in both)


async def test_without_a_share_nobody_else_is_asked() -> None:
    slow, quick = FakeExecutor(1, script=[ROLE, HEL, END, DONE]), FakeExecutor(2)
    async with Net(slow, quick, hedge_share=0.0) as it:
        assert (await it.router.ask(request())).executor == slow.address
        assert quick.chats == []
