"""Executors that fail within their answers, and others that go on."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import Any

import msgspec
import pytest

from lloom.adapters.routing.answer import Answer
from lloom.core.api.anthropic import Messages
from lloom.core.api.embeddings import Embeddings
from lloom.core.api.openai import ChatWhole
from lloom.core.errors import CallerFault, PeerFault, RetryElsewhere
from lloom.core.messages import Done
from lloom.core.sse import event
from tests.unit.adapters.routing_support import END, HANG, ROLE, FakeExecutor, Net, chunk, request

PREFILL = ("prefill",)


def broke() -> RetryElsewhere:
    return RetryElsewhere("broke")


def say(text: str) -> bytes:
    return chunk({"content": text})


def executor(number: int, *script: Any, features: tuple[str, ...] = PREFILL) -> FakeExecutor:
    return FakeExecutor(number, script=[ROLE, *script], features=features)


async def fold(answer: Answer) -> dict[str, Any]:
    """What a caller who reads it piece by piece has in the end."""
    whole = ChatWhole()
    async for data in answer:
        whole.feed(data)
    assert answer.done is not None
    return dict(msgspec.json.decode(whole.end(answer.done)))


async def text(answer: Answer) -> str:
    return str((await fold(answer))["choices"][0]["message"]["content"])


async def test_another_executor_goes_on_and_the_caller_sees_one_answer() -> None:
    first, second = executor(1, say("Once "), broke()), executor(2, say("upon"), say(" a time") + END, Done(9, 4))
    async with Net(first, second) as net:
        answer = await net.router.ask(request(max_tokens=20))
        whole = await fold(answer)
        assert whole["choices"][0]["message"]["content"] == "Once upon a time"
        assert (answer.executor, answer.attempts) == (second.address, 2)
        asked = msgspec.json.decode(second.chats[0].body)
        assert asked["messages"][-1] == {"role": "assistant", "content": "Once "}
        assert asked["max_tokens"] == 18
        assert whole["usage"] == {"prompt_tokens": 7, "completion_tokens": 6, "total_tokens": 13}


async def test_five_executors_may_fail_one_after_the_other() -> None:
    words = [f"{number} " for number in range(6)]
    broken = [executor(number + 1, say(word), broke()) for number, word in enumerate(words[:-1])]
    async with Net(*broken, executor(9, say(words[-1]) + END, Done(20, 2))) as net:
        answer = await net.router.ask(request())
        assert await text(answer) == "".join(words)
        assert answer.attempts == 6


async def test_no_more_executors_go_on_than_set() -> None:
    broken = [executor(number, say("x"), broke()) for number in range(1, 5)]
    async with Net(*broken, continuations=2) as net:
        with pytest.raises(RetryElsewhere, match="broke"):
            await text(await net.router.ask(request()))
        assert [len(each.chats) for each in broken] == [1, 1, 1, 0]


async def test_one_that_answers_alike_says_all_again_and_only_the_rest_is_passed_on() -> None:
    first = executor(1, say("Once "), broke(), features=())
    second = executor(2, say("On"), say("ce up"), say("on") + END, Done(3, 2), features=())
    async with Net(first, second) as net:
        answer = await net.router.ask(request(temperature=0))
        assert await text(answer) == "Once upon"
        assert answer.done == Done(3, 2)
        assert second.chats[0].body == first.chats[0].body


async def test_one_that_answers_otherwise_is_not_passed_on_and_not_blamed() -> None:
    first = executor(1, say("Once "), broke(), features=())
    other = executor(2, say("Twice"), HANG, features=())
    third = executor(3, say("Once upon") + END, Done(3, 2), features=())
    async with Net(first, other, third) as net:
        assert await text(await net.router.ask(request(seed=1))) == "Once upon"
        assert other.chats[0].cancelled
        assert not net.outcomes.rests((other.address, other.endpoint, "m"), asyncio.get_running_loop().time())


async def test_no_more_executors_say_it_again_than_may_go_on() -> None:
    """Else one that begins with nonsense would have everybody asked who offers the model."""
    first = executor(1, say("Zyx"), broke(), features=())
    others = [executor(number, say("Once"), HANG, features=()) for number in range(2, 8)]
    async with Net(first, *others, continuations=3) as net:
        with pytest.raises(RetryElsewhere, match="broke"):
            await text(await net.router.ask(request(temperature=0)))
        assert [len(each.chats) for each in others] == [1, 1, 1, 0, 0, 0]


async def test_an_executor_that_finds_fault_with_going_on_is_passed_over() -> None:
    first = executor(1, say("Once "), broke())
    picky = executor(2, CallerFault("the last message must be the user's"))
    async with Net(first, picky, executor(3, say("Once upon") + END, Done(3, 2))) as net:
        assert await text(await net.router.ask(request(temperature=0))) == "Once upon"


@pytest.mark.parametrize(
    "bad", [b"data: nonsense\n\n", event(b'{"error":{"message":"x"}}'), Done(3, 2)], ids=["chunk", "error", "no end"]
)
async def test_what_is_no_answer_never_reaches_the_caller(bad: Any) -> None:
    last = (
        [say("Once "), bad] if isinstance(bad, Done) else [say("On"), say("ce ") + bad]
    )  # together with what is sound
    first, second = executor(1, *last), executor(2, say("upon") + END, Done(9, 2))
    async with Net(first, second) as net:
        assert await text(await net.router.ask(request())) == "Once upon"
        assert net.outcomes.rests((first.address, first.endpoint, "m"), asyncio.get_running_loop().time())


async def test_an_answer_that_lacks_only_its_end_is_whole() -> None:
    first, second = executor(1, say("Once "), END, broke()), executor(2)
    async with Net(first, second) as net:
        answer = await net.router.ask(request())
        assert await text(answer) == "Once "
        assert answer.done == Done(8, 2)
        assert second.chats == []


async def test_the_limit_holds_over_all_parts() -> None:
    first, second = executor(1, say("one two"), broke()), executor(2)
    async with Net(first, second) as net:
        whole = await fold(await net.router.ask(request(max_tokens=2)))
        assert whole["choices"][0]["finish_reason"] == "length"
        assert second.chats == []


async def test_a_stop_string_over_the_joint_ends_the_answer() -> None:
    first = executor(1, say("Once E"), broke())
    second = executor(2, say("N"), say("D of it"), HANG)
    async with Net(first, second) as net:
        whole = await fold(await net.router.ask(request(stop="END")))
        assert whole["choices"][0]["message"]["content"] == "Once E"
        assert whole["choices"][0]["finish_reason"] == "stop"
        assert second.chats[0].cancelled


async def test_events_that_come_in_pieces_are_passed_on_whole() -> None:
    whole = say("Once ") + say("upon")
    first = executor(1, whole[:-30], broke())
    async with Net(first, executor(2, say("upon") + END, Done(9, 2))) as net:
        answer = await net.router.ask(request())
        parts = [data async for data in answer]
        assert all(part.endswith(b"\n\n") for part in parts)
        assert b"".join(parts).count(b'"upon"') == 1


async def test_who_has_seen_nothing_yet_gets_an_answer_begun_anew() -> None:
    first = executor(1, say("Once "), broke(), features=())
    second = executor(2, say("Twice") + END, Done(3, 1), features=())
    async with Net(first, second) as net:
        answer = await net.router.ask(request())
        whole = msgspec.json.decode(await answer.folded(ChatWhole))
        assert whole["choices"][0]["message"]["content"] == "Twice"
        assert (answer.executor, answer.attempts, answer.done) == (second.address, 2, Done(3, 1))


async def test_what_is_begun_anew_may_go_to_any_model_that_an_alias_stands_for() -> None:
    first = FakeExecutor(1, script=[ROLE, say("Once "), broke()], models=("a",), features=PREFILL)
    second = FakeExecutor(2, script=[ROLE, say("Twice") + END, Done(3, 1)], models=("b",))
    async with Net(first, second, aliases={"x": ("a", "b")}) as net:
        answer = await net.router.ask(request(model="x"))
        whole = msgspec.json.decode(await answer.folded(ChatWhole))
        assert whole["choices"][0]["message"]["content"] == "Twice"


async def test_content_that_is_none_goes_elsewhere_before_anything_is_out() -> None:
    odd = FakeExecutor(1, script=[ROLE, chunk({"content": ["parts"]}), HANG])
    async with Net(odd, executor(2, say("Once") + END, Done(3, 1), features=())) as net:
        assert await text(await net.router.ask(request())) == "Once"
        assert odd.chats[0].cancelled


def of(index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return event(msgspec.json.encode({"id": "x", "object": "chat.completion.chunk", "choices": [choice]}))


@pytest.mark.parametrize("lacking", ["an end of a choice", "a usage"])
async def test_a_plain_answer_that_proves_at_its_end_to_be_none_is_begun_anew(lacking: str) -> None:
    cut = of(0, {"content": "a"}, "stop") + of(1, {"content": "b"}, None if lacking == "an end of a choice" else "stop")
    bad = FakeExecutor(1, script=[cut, Done(3, 2, b"[]" if lacking == "a usage" else b"")])
    good = FakeExecutor(2, script=[of(0, {"content": "c"}, "stop") + of(1, {"content": "d"}, "stop"), Done(3, 4)])
    async with Net(bad, good) as net:
        answer = await net.router.ask(request(n=2))
        whole = msgspec.json.decode(await answer.folded(ChatWhole))
        assert [choice["message"]["content"] for choice in whole["choices"]] == ["c", "d"]
        assert (answer.executor, answer.attempts, answer.done) == (good.address, 2, Done(3, 4))
        assert whole["usage"]["completion_tokens"] == 4
        assert net.outcomes.rests((bad.address, bad.endpoint, "m"), asyncio.get_running_loop().time()) > 0


async def test_what_the_model_wrote_wrong_is_no_fault_of_its_executor() -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "no JSON"}}
    said = FakeExecutor(1, script=[of(0, {"tool_calls": [call]}, "tool_calls"), Done(3, 2)], features=("tools",))
    other = FakeExecutor(2, features=("tools",))
    tool = {"name": "f", "input_schema": {"type": "object"}}
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "tools": [tool]}
    asked = Messages().read(msgspec.json.encode(body), "")
    async with Net(said, other) as net:
        answer = await net.router.ask(asked.request)
        with pytest.raises(PeerFault, match="no JSON object"):
            await answer.folded(asked.whole)
        assert other.chats == []
        assert net.outcomes.rests((said.address, said.endpoint, "m"), asyncio.get_running_loop().time()) == 0


async def test_when_nobody_is_left_to_begin_anew_the_last_failure_is_told() -> None:
    broken = [executor(number, say("x"), broke(), features=()) for number in range(1, 4)]
    async with Net(*broken) as net:
        answer = await net.router.ask(request())
        with pytest.raises(RetryElsewhere):
            await answer.folded(ChatWhole)
        assert [len(each.chats) for each in broken] == [1, 1, 1]


def vector(index: int, floats: bytes) -> bytes:
    return event(b'{"object":"embedding","index":%d,"embedding":"%b"}' % (index, b64encode(floats)))


@pytest.mark.parametrize("broken", [broke(), b"", vector(0, b"12345678"), vector(1, b"123")])
async def test_embeddings_are_asked_for_anew_where_a_vector_is_missing_twice_or_none(broken: Any) -> None:
    good = [vector(0, b"12345678"), vector(1, b"87654321")]
    first = FakeExecutor(1, script=[good[0], broken, Done(2, 0)])
    second = FakeExecutor(2, script=[*good, Done(2, 0)])
    asked = Embeddings().read(b'{"model":"m","input":["one","two"],"encoding_format":"base64"}', "")
    async with Net(first, second) as net:
        answer = await net.router.ask(asked.request)
        data = msgspec.json.decode(await answer.folded(asked.whole))["data"]
        assert answer.done == Done(2, 0)
        assert [item["embedding"] for item in data] == [
            b64encode(b"12345678").decode(),
            b64encode(b"87654321").decode(),
        ]
        assert second.chats[0].body == asked.request.body
