from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given
from pydantic import TypeAdapter

from lloom.core.api.anthropic import Messages
from lloom.core.api.anthropic.dialect import MessageAsked
from lloom.core.api.dialect import Failure
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.messages import Done
from lloom.core.sse import event
from tests.unit.core.api.answers_support import (
    ANSWERS,
    CALLS,
    CUT,
    HELLO,
    REFUSED,
    ROLE,
    THOUGHT,
    USED,
    call,
    chunk,
    cut_anywhere,
    events,
    folded,
    streamed,
)

EVENT: TypeAdapter[RawMessageStreamEvent] = TypeAdapter(RawMessageStreamEvent)
USAGE = {
    "input_tokens": 8,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 4,
    "output_tokens": 5,
}


def asked(**fields: Any) -> MessageAsked:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **fields}
    return Messages().read(msgspec.json.encode(body), "req_1")


def reason(answer: Sequence[bytes], **fields: Any) -> str:
    whole = folded(asked(**fields), answer)
    assert events(streamed(asked(**fields), answer))[-2]["delta"] == {
        "stop_reason": whole["stop_reason"],
        "stop_sequence": whole["stop_sequence"],
    }
    return str(whole["stop_reason"])


def test_text_comes_in_the_order_of_the_documentation() -> None:
    assert events(streamed(asked(), HELLO)) == [
        {
            "type": "message_start",
            "message": {
                "id": "msg_req_1",
                "type": "message",
                "role": "assistant",
                "model": "m-1",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": dict.fromkeys(USAGE, 0),
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "", "citations": None}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": USAGE},
        {"type": "message_stop"},
    ]


def test_tools_are_used_in_blocks_of_their_own() -> None:
    found = events(streamed(asked(), CALLS))
    assert [(each["type"], each.get("index")) for each in found[1:-2]] == [
        ("content_block_start", 0),
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
        ("content_block_delta", 1),
        ("content_block_stop", 1),
        ("content_block_start", 2),
        ("content_block_delta", 2),
        ("content_block_stop", 2),
    ]
    assert found[4]["content_block"] == {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {}}
    assert found[5]["delta"] == {"type": "input_json_delta", "partial_json": '{"location": "San'}
    assert found[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_whole_message_has_the_same_blocks() -> None:
    assert folded(asked(), CALLS) == {
        "id": "msg_req_1",
        "type": "message",
        "role": "assistant",
        "model": "m-1",
        "content": [
            {"type": "text", "text": "I'll look.", "citations": None},
            {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"location": "San Francisco, CA"}},
            {"type": "tool_use", "id": "call_2", "name": "get_time", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": USAGE,
    }


def test_thoughts_come_before_the_text() -> None:
    assert folded(asked(), THOUGHT)["content"] == [
        {"type": "thinking", "thinking": "Hmm.", "signature": ""},
        {"type": "text", "text": "Hello", "citations": None},
    ]


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_every_event_is_one_of_the_official_types_and_all_add_up_to_the_whole(answer: Sequence[bytes]) -> None:
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for each in events(streamed(asked(), answer)):
        parsed = EVENT.validate_python(each)
        snapshot = accumulate_event(event=parsed, current_snapshot=snapshot, json_bufs=buffers)
    whole = Message.model_validate(folded(asked(), answer))
    assert snapshot.to_dict(exclude_none=True) == whole.to_dict(exclude_none=True)


@given(cut_anywhere())
def test_it_does_not_matter_how_the_bytes_are_cut(cut: tuple[Sequence[bytes], list[bytes]]) -> None:
    answer, pieces = cut
    assert streamed(asked(), pieces) == streamed(asked(), answer)
    assert folded(asked(), pieces) == folded(asked(), answer)


def test_reasons_to_stop() -> None:
    assert reason(HELLO) == "end_turn"
    assert reason(CUT) == "max_tokens"
    assert reason(REFUSED) == "refusal"
    assert reason([ROLE, chunk({"content": "x"}), chunk({}, "content_filter")]) == "refusal"
    assert reason([*CALLS[:-1], chunk({}, "stop")]) == "tool_use"
    assert reason([ROLE, chunk({"content": "x"}), chunk({}, "something else")]) == "end_turn"


def test_a_stop_sequence_is_named_where_the_backend_names_it() -> None:
    answer = [ROLE, chunk({"content": "x"}), chunk({}, "stop", stop_reason="END")]
    assert reason(answer, stop_sequences=["END"]) == "stop_sequence"
    assert folded(asked(stop_sequences=["END"]), answer)["stop_sequence"] == "END"
    assert reason(answer, stop_sequences=["OTHER"]) == "end_turn"
    assert reason([ROLE, chunk({"content": "x"}), chunk({}, "stop", stop_reason=151643)]) == "end_turn"


def test_usage_that_no_backend_gave_is_the_executors_count() -> None:
    assert folded(asked(), HELLO, Done(3, 2))["usage"] == {
        "input_tokens": 3,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 2,
    }


@pytest.mark.parametrize(
    "usage",
    [
        b"[]",
        b"{",
        b'{"prompt_tokens":-1}',
        b'{"prompt_tokens":"3"}',
        b'{"prompt_tokens_details":{"cached_tokens":1.5}}',
    ],
)
def test_usage_that_is_none_is_the_peers_fault(usage: bytes) -> None:
    with pytest.raises(PeerFault):
        folded(asked(), HELLO, Done(3, 2, usage))
    with pytest.raises(PeerFault):
        streamed(asked(), HELLO, Done(3, 2, usage))


def test_no_more_is_cached_than_there_was() -> None:
    usage = folded(asked(), HELLO, Done(3, 2, b'{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":9}}'))[
        "usage"
    ]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (0, 3)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (HELLO[:-1], PeerFault),
        ([event(b"{")], PeerFault),
        ([event(b'{"choices":[{"delta":{"content":7}}]}')], PeerFault),
        ([event(b'{"choices":[{"delta":{"tool_calls":[{"index":-1}]}}]}')], PeerFault),
        ([event(b'{"error":{"message":"secret"}}')], RetryElsewhere),
        ([chunk(call(0, "c", arguments="{}"))], PeerFault),
        ([*CALLS[:-1], chunk(call(0, arguments="!"))], PeerFault),
        ([b"x" * (1 << 23)], PeerFault),
    ],
    ids=["cut", "no JSON", "no text", "no index", "error", "no name", "mixed", "no event"],
)
def test_an_odd_answer_is_the_executors_fault(answer: Sequence[bytes], error: type[Exception]) -> None:
    with pytest.raises(error):
        streamed(asked(), answer)
    with pytest.raises(error):
        folded(asked(), answer)


def test_arguments_must_be_an_object_unless_they_were_cut() -> None:
    started = [ROLE, chunk(call(0, "c", "f", '{"x": 1')), chunk({}, "tool_calls")]
    with pytest.raises(PeerFault):
        folded(asked(), started)
    cut = folded(asked(), [*started[:-1], chunk({}, "length")])
    assert (cut["content"][0]["input"], cut["stop_reason"]) == ({}, "max_tokens")


def test_backends_that_count_all_calls_as_the_first_and_repeat_names_are_understood() -> None:
    answer = [
        ROLE,
        chunk(call(0, "a", "f", '{"x":')),
        chunk(call(0, "a", "f", "1}")),
        chunk(call(0, "b", "g", "{}")),
        chunk(call(0)),
        chunk({}, "tool_calls"),
    ]
    content = folded(asked(), answer)["content"]
    assert [(each["id"], each["name"], each["input"]) for each in content] == [("a", "f", {"x": 1}), ("b", "g", {})]


def test_a_call_without_an_id_gets_one() -> None:
    answer = [ROLE, chunk({"function_call": {"name": "f", "arguments": "{}"}}), chunk({}, "function_call")]
    whole = folded(asked(), answer)
    assert whole["content"][0]["id"] == "toolu_req_1_0"
    assert whole["stop_reason"] == "tool_use"


def test_other_choices_and_empty_chunks_are_passed_over() -> None:
    other = event(b'{"choices":[{"index":1,"delta":{"content":"no"}}]}')
    assert folded(asked(), [HELLO[0], other, event(b'{"choices":null}'), *HELLO[1:]]) == folded(asked(), HELLO)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (409, "invalid_request_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_errors_are_told_in_anthropics_words(status: int, kind: str) -> None:
    failure = Failure(status, "it broke", param="p", code="c")
    expected = {"type": "error", "error": {"type": kind, "message": "it broke"}, "request_id": "req_1"}
    assert msgspec.json.decode(Messages().refusal(failure, "req_1")) == expected
    assert events(asked().stream().failed(failure)) == [expected]


def test_what_is_sent_while_nothing_comes_is_a_ping() -> None:
    assert events(Messages().waiting) == [{"type": "ping"}]


def test_usage_is_asked_for_by_nobody_and_given_to_all() -> None:
    assert USED.usage
    assert not asked().request.include_usage
