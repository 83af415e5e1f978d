from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.api.chunks import read, usage, usage_event
from lloom.core.completion import Fold
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.messages import Done
from lloom.core.sse import event, payload

DONE = Done(
    3, 2, b'{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}'
)


def chunk(delta: dict[str, Any] | None = None, *, index: int = 0, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish, "logprobs": more.pop("logprobs", None)}
    return msgspec.json.encode({"id": "c1", "created": 7, "model": "m", "choices": [choice], **more})


def folded(*chunks: bytes, done: Done = DONE) -> dict[str, Any]:
    fold = Fold()
    for each in chunks:
        fold.feed(event(each))
    return msgspec.json.decode(fold.completion(done))


END = chunk(finish="stop")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"x", b'{"choices":{}}', b'{"choices":[{"delta":[]}]}', b"[" * 100_000, b'{"id":"\xff"}']
)
def test_what_is_no_chunk_is_the_executors_fault(data: bytes) -> None:
    with pytest.raises(PeerFault):
        read(data)


def test_an_error_instead_of_a_chunk_is_tried_elsewhere() -> None:
    with pytest.raises(RetryElsewhere):
        read(b'{"error":{"message":"secret detail"}}')


def test_a_plain_answer_has_every_key_that_clients_require() -> None:
    answer = folded(
        chunk({"role": "assistant", "content": ""}), chunk({"content": "Hel"}), chunk({"content": "lo"}), END
    )
    assert answer == {
        "id": "c1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": msgspec.json.decode(DONE.usage),
        "system_fingerprint": None,
    }


def test_an_answer_without_a_word_is_empty_text() -> None:
    assert folded(END)["choices"][0]["message"]["content"] == ""


def test_pieces_of_tool_calls_are_joined_by_their_index() -> None:
    answer = folded(
        chunk(
            {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]}
        ),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]}),
        chunk({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}]}),
        chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ":1}"}}]}),
        chunk(finish="tool_calls"),
    )
    message = answer["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_calls_that_are_all_counted_as_the_first_are_told_apart_by_their_ids() -> None:
    def begun(id: str, name: str) -> bytes:
        return chunk({"tool_calls": [{"index": 0, "id": id, "function": {"name": name, "arguments": '{"x":'}}]})

    more = chunk({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]})
    answer = folded(begun("a", "f"), more, begun("b", "f"), more, begun("c", "g"), more, chunk(finish="tool_calls"))
    assert answer["choices"][0]["message"]["tool_calls"] == [
        {"id": id, "type": "function", "function": {"name": name, "arguments": '{"x":1}'}}
        for id, name in (("a", "f"), ("b", "f"), ("c", "g"))
    ]


def test_calls_without_end_are_a_fault() -> None:
    many = [chunk({"tool_calls": [{"index": 0, "id": f"c{at}", "function": {"name": "f"}}]}) for at in range(2000)]
    with pytest.raises(PeerFault, match="too many tool calls"):
        folded(*many)


def test_several_choices_are_kept_apart_and_in_order() -> None:
    answer = folded(
        chunk({"content": "b"}, index=1),
        chunk({"content": "a"}, index=0),
        chunk({"content": "B"}, index=1, finish="length"),
        END,
    )
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in answer["choices"]] == [
        (0, "a", "stop"),
        (1, "bB", "length"),
    ]


def test_log_probabilities_follow_one_another() -> None:
    answer = folded(
        chunk({"content": "a"}, logprobs={"content": [{"token": "a"}], "refusal": None}),
        chunk({"content": "b"}, logprobs={"content": [{"token": "b"}], "refusal": None}),
        END,
    )
    assert answer["choices"][0]["logprobs"] == {"content": [{"token": "a"}, {"token": "b"}], "refusal": None}


def test_reasoning_refusals_and_fields_unknown_to_us_survive() -> None:
    answer = folded(
        chunk({"reasoning_content": "hm"}),
        chunk({"reasoning_content": "m", "annotations": [1]}),
        chunk({"refusal": "no", "annotations": [2], "mood": {"kind": "grim"}}),
        END,
    )
    message = answer["choices"][0]["message"]
    assert (message["reasoning_content"], message["refusal"]) == ("hmm", "no")
    assert (message["annotations"], message["mood"]) == ([1, 2], {"kind": "grim"})


@pytest.mark.parametrize("chunks", [[], [chunk({"content": "x"})], [chunk({"content": "x"}, index=1), END]])
def test_a_choice_without_an_end_was_cut_and_never_gets_a_made_up_one(chunks: list[bytes]) -> None:
    with pytest.raises(PeerFault, match="broke off"):
        folded(*chunks)


@pytest.mark.parametrize(
    "delta",
    [{"tool_calls": 5}, {"tool_calls": [{"index": -1}]}, {"tool_calls": [{"index": 10**9}]}, {"role": 5}],
)
def test_a_delta_of_the_wrong_form_is_the_executors_fault(delta: dict[str, Any]) -> None:
    with pytest.raises(PeerFault):
        folded(chunk(delta), END)


def test_without_the_backends_usage_the_executors_count_stands() -> None:
    assert usage(Done(3, 2)) == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


@pytest.mark.parametrize("wrong", [b"[]", b"{", b'{"a":"\xff"}', b"[" * 4000])
def test_a_usage_that_is_none_is_the_executors_fault(wrong: bytes) -> None:
    with pytest.raises(PeerFault):
        usage(Done(3, 2, wrong))


def test_the_usage_event_continues_the_stream_it_ends() -> None:
    last = usage_event(chunk({"content": "x"}), "chat.completion.chunk", Done(1, 2, b'{\n"completion_tokens": 2}'))
    assert last.endswith(b"\n\n")
    assert last.count(b"\n") == 2
    assert msgspec.json.decode(payload(last)) == {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "m",
        "choices": [],
        "usage": {"completion_tokens": 2},
    }


texts = st.lists(st.text(max_size=5), max_size=8)


@given(texts, texts, st.data())
def test_the_fold_is_the_same_wherever_the_stream_was_cut(
    content: list[str], arguments: list[str], data: st.DataObject
) -> None:
    chunks = [chunk({"content": text}) for text in content]
    chunks += [chunk({"tool_calls": [{"index": 0, "function": {"arguments": text}}]}) for text in arguments]
    stream = b": comment\n\n" + b"".join(event(each) for each in (*chunks, chunk(finish="stop")))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    fold = Fold()
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        fold.feed(stream[start:end])
    message = msgspec.json.decode(fold.completion(DONE))["choices"][0]["message"]
    assert (message["content"] or "") == "".join(content)
    if arguments:
        assert message["tool_calls"][0]["function"]["arguments"] == "".join(arguments)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from(["role", "content", "tool_calls", "function_call", "refusal", "x"])


@given(st.lists(st.dictionaries(keys, anything), max_size=4))
def test_arbitrary_deltas_fold_or_are_the_executors_fault(deltas: list[dict[str, Any]]) -> None:
    with contextlib.suppress(RetryElsewhere):
        folded(*(chunk(delta) for delta in deltas), END)
