"""OpenAI's older completions: what is read of them, and what comes back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.api.completions import Completions, CompletionWhole, parse
from lloom.core.api.dialect import Served
from lloom.core.errors import CallerFault, PeerFault
from lloom.core.messages import Done
from lloom.core.sse import Splitter, event, payload

DONE = Done(3, 2, b'{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}')


def body(prompt: Any = "Once", **fields: Any) -> bytes:
    return msgspec.json.encode({"model": "M", "prompt": prompt, **fields})


def chunk(text: str, index: int = 0, finish: str | None = None, logprobs: Any = None) -> bytes:
    choice = {"index": index, "text": text, "finish_reason": finish, "logprobs": logprobs}
    return event(
        msgspec.json.encode({"id": "c", "object": "text_completion", "created": 7, "model": "m", "choices": [choice]})
    )


def test_what_routing_needs_is_read() -> None:
    asked = parse(body(max_tokens=7, n=2, stream=True, stream_options={"include_usage": True}, logprobs=0))
    assert (asked.operation, asked.model, asked.max_output, asked.choices) == ("completions", "m", 7, 2)
    assert (asked.stream, asked.include_usage, asked.text_bytes) == (True, True, 4)
    assert asked.features == {"logprobs"}


@pytest.mark.parametrize(
    ("prompt", "prompts", "text_bytes"),
    [("é", 1, 2), ([1, 2, 3], 1, 24), (["a", "bcd"], 2, 3), ([[1], [2, 3]], 2, 16), ("", 1, 0)],
)
def test_a_prompt_is_text_or_tokens_or_several(prompt: Any, prompts: int, text_bytes: int) -> None:
    asked = parse(body(prompt, n=3))
    assert (asked.prompts, asked.choices, asked.text_bytes) == (prompts, 3 * prompts, text_bytes)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [[1], "a"]}, "prompt"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": ["a"] * 65, "n": 2}, "prompt"),
        ({"n": 0}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"best_of": 3, "n": 2}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"echo": "yes"}, "echo"),
        ({"suffix": 1}, "suffix"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"seed": "x"}, "seed"),
        ({"user": 1}, "user"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {}}, "stream_options"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(CallerFault) as raised:
        parse(body(**fields))
    assert (raised.value.status, raised.value.param) == (400, param)


def test_a_prompt_that_is_only_repeated_needs_no_token() -> None:
    assert parse(body(max_tokens=0, echo=True)).max_output == 0


def test_the_best_of_as_many_as_are_wanted_is_all_of_them() -> None:
    assert parse(body(n=2, best_of=2)).choices == 2


@given(st.lists(st.tuples(st.integers(0, 2), st.text(max_size=5)), min_size=1), st.data())
def test_however_the_bytes_are_cut_each_choice_is_whole(pieces: list[tuple[int, str]], data: st.DataObject) -> None:
    expected: dict[int, str] = {}
    stream = b""
    for index, text in pieces:
        expected[index] = expected.get(index, "") + text
        stream += chunk(text, index)
    stream += b"".join(chunk("", index, "stop") for index in expected)
    whole = CompletionWhole()
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        whole.feed(stream[:cut])
        stream = stream[cut:]
    found = msgspec.json.decode(whole.end(DONE))
    assert {choice["index"]: choice["text"] for choice in found["choices"]} == expected
    assert (found["object"], found["usage"]["total_tokens"]) == ("text_completion", 5)


def test_logprobs_are_joined() -> None:
    whole = CompletionWhole()
    for text, finish in ((" a", None), (" b", "length")):
        whole.feed(chunk(text, 0, finish, {"tokens": [text], "token_logprobs": [-1.0], "top_logprobs": None}))
    [choice] = msgspec.json.decode(whole.end(DONE))["choices"]
    assert choice["logprobs"] == {"tokens": [" a", " b"], "token_logprobs": [-1.0, -1.0], "top_logprobs": None}


@pytest.mark.parametrize("chunks", [b"", chunk("a"), chunk("a", 0, "stop") + chunk("b", 1)])
def test_an_answer_without_its_end_was_cut(chunks: bytes) -> None:
    whole = CompletionWhole()
    whole.feed(chunks)
    with pytest.raises(PeerFault):
        whole.end(DONE)


def test_a_stream_ends_with_its_usage_as_a_text_completion() -> None:
    asked = Completions().read(body(stream=True, stream_options={"include_usage": True}), "req")
    stream = asked.stream()
    assert stream.feed(chunk(" upon")) == chunk(" upon")
    found = [data for each in Splitter().feed(stream.end(DONE, Served("0x", 1))) if (data := payload(each))]
    usage = msgspec.json.decode(found[0])
    assert (usage["id"], usage["object"], usage["choices"]) == ("c", "text_completion", [])
    assert usage["usage"]["completion_tokens"] == 2
    assert found[-1] == b"[DONE]"
