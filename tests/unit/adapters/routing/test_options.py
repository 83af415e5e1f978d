"""Whom a request may go to by the names that models have here, and how it waits where all are busy."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from lloom.adapters.routing.answer import Answer
from lloom.core.errors import CallerFault, RetryElsewhere
from lloom.core.identity import checksum
from lloom.core.routing.outcomes import Failure
from lloom.core.settings import ModelRouting
from tests.integration.virtual_support import in_virtual_time
from tests.unit.adapters.routing_support import ANSWER, END, HANG, HEL, FakeExecutor, Net, request, until

BUSY = RetryElsewhere("all places are taken", status=429, code="busy", retry_after=2)


class Small(FakeExecutor):
    """It takes one request at a time."""

    def _model(self, name: str) -> Any:
        return msgspec.structs.replace(super()._model(name), parallel=1)


async def end(answer: Answer) -> None:
    async for _ in answer:
        pass


def asking(net: Net, **fields: Any) -> asyncio.Task[Answer]:
    return asyncio.create_task(net.router.ask(request(**fields)))


# --- aliases


async def model_of(net: Net, name: str) -> str:
    answer = await net.router.ask(request(model=name))
    await end(answer)
    return next(call.call.model for each in net.dht.all.values() for call in reversed(each.chats))


async def test_an_alias_is_the_first_of_its_models_that_somebody_serves() -> None:
    async with Net(FakeExecutor(1, models=("qwen3-8b",)), aliases={"GPT-4o": ("llama-3.3-70b", "qwen*")}) as net:
        assert await model_of(net, "gpt-4o") == "qwen3-8b"


async def test_the_next_model_is_asked_when_all_of_the_first_fail() -> None:
    first, second = FakeExecutor(1, models=("a",), script=[BUSY]), FakeExecutor(2, models=("b",))
    async with Net(first, second, aliases={"x": ("a", "b")}) as net:
        answer = await net.router.ask(request(model="x"))
        assert (answer.executor, answer.attempts) == (second.address, 2)


async def test_an_answer_that_broke_off_is_not_gone_on_with_by_another_model() -> None:
    first = FakeExecutor(1, models=("a",), script=[HEL, RetryElsewhere("broke")])
    second = FakeExecutor(2, models=("b",))
    async with Net(first, second, aliases={"x": ("a", "b")}) as net:
        with pytest.raises(RetryElsewhere, match="broke"):
            await end(await net.router.ask(request(model="x", temperature=0)))
        assert second.chats == []


async def test_of_a_pattern_the_model_that_most_serve_comes_first() -> None:
    many = [FakeExecutor(number, models=("qwen-b",)) for number in (2, 3)]
    async with Net(FakeExecutor(1, models=("qwen-a",)), *many, aliases={"x": ("qwen*",)}) as net:
        assert (await net.router.ask(request(model="x"))).executor in {each.address for each in many}


async def test_an_alias_of_nothing_says_what_it_stands_for() -> None:
    async with Net(FakeExecutor(1), aliases={"x": ("llama*", "qwen3")}) as net:
        with pytest.raises(RetryElsewhere, match=r"'x' stands for: llama\*, qwen3"):
            await net.router.ask(request(model="x"))
        with pytest.raises(CallerFault):
            await net.router.ask(request(model="y"))


async def test_aliases_are_listed_by_what_they_stand_for_now() -> None:
    aliases = {"GPT-4o": ("llama*", "b", "qwen*"), "gone": ("llama-3.3-70b",), "b": ("a",)}
    first, second = FakeExecutor(1, models=("a", "qwen3")), FakeExecutor(2, models=("b", "qwen3"))
    async with Net(first, second, aliases=aliases) as net:
        found = await net.router.aliases()
        told = {alias: [(who, offer.id) for who, offer in meant] for alias, meant in found.items()}
    assert told["gpt-4o"][0] == (second.address, "b"), "in order of preference"
    assert sorted(told["gpt-4o"][1:]) == sorted([(first.address, "qwen3"), (second.address, "qwen3")])
    assert told["b"] == [(first.address, "a")]
    assert set(told) == {"gpt-4o", "b"}


async def test_what_is_different_for_a_model_holds_for_its_attempts() -> None:
    executors = [FakeExecutor(number, script=[RetryElsewhere("broke")]) for number in (1, 2, 3)]
    async with Net(*executors, models={"m": ModelRouting(attempts=1)}) as net:
        with pytest.raises(RetryElsewhere):
            await net.router.ask(request())
        assert sum(len(each.chats) for each in executors) == 1


# --- waiting


async def test_a_request_waits_until_the_one_before_it_has_ended() -> None:
    executor = Small(1)
    async with Net(executor, queue=4) as net:
        first = await net.router.ask(request())
        second, third = asking(net), asking(net)
        await until(lambda: len(net.router.finder.waiting) == 2)
        assert len(executor.chats) == 1
        await end(first)
        await end(await second)
        await end(await third)
        assert (len(executor.chats), len(net.router.finder.waiting)) == (3, 0)


async def test_whoever_comes_later_does_not_pass_those_who_wait() -> None:
    async with Net(Small(1), queue=8) as net:
        first = await net.router.ask(request())
        waiting = [asking(net) for _ in range(3)]
        await until(lambda: len(net.router.finder.waiting) == 3)
        await end(first)
        late = asking(net)
        for each in (*waiting, late):
            assert not late.done() or each is late
            await end(await each)


async def test_who_can_go_elsewhere_passes_those_who_cannot() -> None:
    plain, able = Small(1, script=[HEL, HANG]), Small(2, script=[HEL, HANG], features=("tools",))
    tools = [{"type": "function", "function": {"name": "f"}}]
    async with Net(plain, able, queue=8) as net:
        held = [await net.router.ask(request()) for _ in range(2)]
        picky = asking(net, tools=tools)
        await until(lambda: len(net.router.finder.waiting) == 1)
        others = [asking(net) for _ in range(2)]
        await until(lambda: len(net.router.finder.waiting) == 3)
        await held[0].close()
        await until(others[0].done)
        await held[1].close()
        await until(picky.done)
        await (await others[0]).close()
        for each in (*others, picky):
            await (await each).close()


async def test_a_full_line_is_told_at_once_and_when_to_come_back() -> None:
    async with Net(Small(1), queue=1) as net:
        await net.router.ask(request())
        waits = asking(net)
        await until(lambda: len(net.router.finder.waiting) == 1)
        with pytest.raises(RetryElsewhere) as caught:
            await net.router.ask(request())
        assert (caught.value.status, caught.value.code) == (429, "busy")
        assert caught.value.retry_after
        assert net.router.finder.waiting.refused == 1
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert len(net.router.finder.waiting) == 0


@in_virtual_time
async def test_nobody_waits_longer_than_set() -> None:
    async with Net(Small(1), queue=4, queue_seconds=3, grace_seconds=0.01) as net:
        await net.router.ask(request())
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(RetryElsewhere) as caught:
            await net.router.ask(request())
        assert (caught.value.status, loop.time() - began) == (429, pytest.approx(3))


@in_virtual_time
async def test_an_executor_that_said_when_to_come_back_is_waited_for_till_then() -> None:
    executor = FakeExecutor(1, script=[BUSY])
    async with Net(executor, queue=4, queue_seconds=30, grace_seconds=0.01) as net:
        with pytest.raises(RetryElsewhere):
            await net.router.ask(request())
        executor.script = list(ANSWER)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await end(await net.router.ask(request()))
        assert loop.time() - began == pytest.approx(2, abs=0.1)


async def test_without_a_line_a_busy_executor_is_told_of_at_once() -> None:
    async with Net(Small(1), queue=0) as net:
        await net.router.ask(request())
        with pytest.raises(RetryElsewhere, match="1 at its limit of 1 requests") as caught:
            await net.router.ask(request())
        assert caught.value.status == 429


# --- what is told


async def test_an_answer_tells_why_its_executor_was_chosen() -> None:
    async with Net(FakeExecutor(1), FakeExecutor(2)) as net:
        answer = await net.router.ask(request())
        assert answer.routing.startswith("policy=cheapest; score=0.")
        assert "of=2" in answer.routing


async def test_verdicts_tell_who_would_be_asked_and_why_others_not() -> None:
    good, away, denied = FakeExecutor(1), FakeExecutor(2), FakeExecutor(3)
    hung = FakeExecutor(4, script=[HEL, HANG])
    async with Net(good, away, denied, hung, deny=(checksum(denied.address),)) as net:
        await end(await net.router.ask(request()))
        now = asyncio.get_running_loop().time()
        net.outcomes.failed((away.address, away.endpoint, "m"), now, Failure.SILENT, None)
        told = {each.executor: each for each in await net.router.explain(request())}
        assert [each.verdict for each in told.values()] == ["well", "newcomer", "not now", "left out"]
        first = told[checksum(good.address)]
        assert (first.breaker, first.outcomes, first.first_token_p50 is not None) == ("closed", 1.0, True)
        assert "did not answer" in told[checksum(away.address)].reason
        assert (told[checksum(away.address)].breaker, told[checksum(denied.address)].reason) == (
            "open",
            "one that routing.deny names",
        )


async def test_figures_count_attempts_failures_and_breakers() -> None:
    bad, good = FakeExecutor(1, script=[BUSY]), FakeExecutor(2, script=[HEL + END, *ANSWER[-1:]])
    async with Net(bad, good) as net:
        await end(await net.router.ask(request()))
        told = {
            (sample.name, *sample.labels.values()): sample.value
            for metric in net.router.figures().collect()
            for sample in metric.samples
        }
        assert told["lloom_attempts_total",] == 2
        assert told["lloom_attempt_failures_total", "refused"] == 1
        assert told["lloom_breakers", "busy"] == 1
        assert told["lloom_breakers", "closed"] == 1
        assert (told["lloom_queued",], told["lloom_queue_refused_total",], told["lloom_hedges_total",]) == (0, 0, 0)


async def test_nobody_is_asked_besides_while_others_wait() -> None:
    one, other = Small(1, script=[HEL, HANG]), Small(2, script=[HEL, HANG])
    async with Net(one, other, queue=8) as net:
        options = await net.router.finder.find("m", asyncio.get_running_loop().time() + 60)
        assert options.free(request(), []) is not None
        held = [await net.router.ask(request()) for _ in range(2)]
        waiting = asking(net)
        await until(lambda: len(net.router.finder.waiting) == 1)
        await held[0].close()  # whoever waits is served in a moment
        assert options.free(request(), []) is None
        await held[1].close()
        await (await waiting).close()
