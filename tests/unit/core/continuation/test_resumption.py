from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lloom.core.api.chat import parse
from lloom.core.api.request import ApiRequest
from lloom.core.continuation.record import Record
from lloom.core.continuation.resumption import follow_up, stops, summed, ways
from lloom.core.messages import Done
from lloom.core.sse import event

SAID = b'{"choices":[{"index":0,"delta":{"content":"Once upon"}}]}'
USER = {"role": "user", "content": "A story"}


def ask(**fields: Any) -> ApiRequest:
    return parse(msgspec.json.encode({"model": "m", "messages": [USER], **fields}))


def completion(**fields: Any) -> ApiRequest:
    body = {"model": "m", "prompt": "It was", **fields}
    limit = body.get("max_tokens")
    return ApiRequest("completions", msgspec.json.encode(body), "m", True, False, 1, limit, 6, frozenset())


def record(*chunks: bytes) -> Record:
    found = Record()
    for chunk in chunks or (SAID,):
        found.feed(event(chunk))
    return found


def test_a_text_is_gone_on_with_and_said_again_only_where_that_gives_the_same() -> None:
    assert ways(ask(), record()) == ("prefill",)
    assert ways(ask(temperature=0), record()) == ("prefill", "regenerate")
    assert ways(ask(seed=7), record()) == ("prefill", "regenerate")
    assert ways(completion(), record()) == ("prefill",)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s"}}},
    ],
    ids=str,
)
def test_some_requests_cannot_be_gone_on_with(fields: dict[str, Any]) -> None:
    assert ways(ask(temperature=0, **fields), record()) == ()


def test_neither_can_some_completions() -> None:
    assert ways(completion(echo=True), record()) == ()
    assert ways(completion(suffix="end"), record()) == ()
    assert ways(completion(best_of=3), record()) == ()
    assert ways(completion(prompt=["a", "b"], seed=1), record()) == ("regenerate",)


def test_neither_can_some_answers() -> None:
    tool = b'{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0}]}}]}'
    thought = b'{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}'
    assert ways(ask(temperature=0), record(SAID, tool)) == ()
    assert ways(ask(temperature=0), record(thought)) == ()
    assert ways(ask(temperature=0), record(thought, SAID)) == ("prefill",)


def test_the_next_executor_is_asked_to_go_on_and_for_no_more_than_is_left() -> None:
    asked = follow_up(ask(max_tokens=10, tools=None), "Once upon", 2)
    body = msgspec.json.decode(asked.body)
    assert body["messages"] == [USER, {"role": "assistant", "content": "Once upon"}]
    assert (body["max_tokens"], asked.max_output, asked.features) == (8, 8, {"prefill"})


def test_a_message_that_the_caller_began_is_made_longer() -> None:
    begun = {"role": "assistant", "content": "Title: ", "name": "bard"}
    body = msgspec.json.decode(follow_up(ask(messages=[USER, begun]), "Once", 1).body)
    assert body["messages"] == [USER, begun | {"content": "Title: Once"}]


def test_a_completion_goes_on_after_a_longer_prompt_at_any_executor() -> None:
    asked = follow_up(completion(max_tokens=10), " night", 1)
    assert msgspec.json.decode(asked.body) == {"model": "m", "prompt": "It was night", "max_tokens": 9}
    assert asked.features == frozenset()


def test_nobody_is_asked_when_the_limit_is_used_up() -> None:
    with pytest.raises(ValueError, match="nothing is left"):
        follow_up(ask(max_completion_tokens=2), "Once upon", 2)


def test_stop_strings_are_found() -> None:
    assert (stops(ask()), stops(ask(stop="END")), stops(ask(stop=["a", "b"]))) == ((), ("END",), ("a", "b"))


def test_the_prompt_counts_once_and_what_was_delivered_as_output() -> None:
    last = Done(12, 5, b'{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17,"x":{"y":1}}')
    whole = summed("prefill", 4, last)
    assert (whole.input_tokens, whole.output_tokens) == (8, 9)
    assert msgspec.json.decode(whole.usage) == {
        "prompt_tokens": 8,
        "completion_tokens": 9,
        "total_tokens": 17,
        "x": {"y": 1},
    }
    assert summed("regenerate", 4, last) == last
