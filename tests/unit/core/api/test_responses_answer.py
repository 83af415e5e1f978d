from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from lloom.core.api.dialect import Failure
from lloom.core.api.responses import Responses
from lloom.core.api.responses.dialect import ResponseAsked
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
    call,
    chunk,
    cut_anywhere,
    events,
    folded,
    streamed,
)

EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
PATCH = {"type": "custom", "name": "apply_patch"}
SERVER = {"type": "namespace", "name": "mcp__files", "description": "", "tools": [{"type": "function", "name": "read"}]}


def asked(**fields: Any) -> ResponseAsked:
    return Responses().read(msgspec.json.encode({"model": "m", "input": "hi", **fields}), "req_1")


def kinds(found: Sequence[dict[str, Any]]) -> list[str]:
    return [each["type"].removeprefix("response.") for each in found]


def without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def test_text_comes_in_the_order_of_the_documentation() -> None:
    found = events(streamed(asked(), HELLO))
    assert [each["sequence_number"] for each in found] == list(range(len(found)))
    assert kinds(found) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    within = {"item_id": "msg_req_1_0", "output_index": 0, "content_index": 0}
    message = {"id": "msg_req_1_0", "type": "message", "role": "assistant"}
    part = {"type": "output_text", "annotations": [], "logprobs": []}
    assert [without(each, "type", "sequence_number") for each in found[2:9]] == [
        {"output_index": 0, "item": {**message, "status": "in_progress", "content": []}},
        {**within, "part": {**part, "text": ""}},
        {**within, "delta": "Hel", "logprobs": []},
        {**within, "delta": "lo", "logprobs": []},
        {**within, "text": "Hello", "logprobs": []},
        {**within, "part": {**part, "text": "Hello"}},
        {"output_index": 0, "item": {**message, "status": "completed", "content": [{**part, "text": "Hello"}]}},
    ]


def test_the_object_has_all_its_keys_and_says_what_was_asked() -> None:
    asking = {
        "instructions": "Be brief.",
        "max_output_tokens": 99,
        "metadata": {"a": "b"},
        "store": True,
        "temperature": 0.5,
        "tools": [{"type": "function", "name": "f"}],
        "reasoning": {"effort": "low"},
    }
    assert folded(asked(**asking), HELLO) == {
        "id": "resp_req_1",
        "object": "response",
        "created_at": 7,
        "status": "completed",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": "Be brief.",
        "max_output_tokens": 99,
        "max_tool_calls": None,
        "model": "m-1",
        "output": [
            {
                "id": "msg_req_1_0",
                "status": "completed",
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}],
            }
        ],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": "low", "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": False,
        "temperature": 0.5,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [{"type": "function", "name": "f", "description": None, "parameters": None, "strict": None}],
        "top_logprobs": 0,
        "top_p": None,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 12,
            "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 2},
            "total_tokens": 17,
        },
        "user": None,
        "metadata": {"a": "b"},
    }


def test_calls_are_items_of_their_own() -> None:
    found = events(streamed(asked(), CALLS))
    assert kinds(found)[8:-1] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    arguments = '{"location": "San Francisco, CA"}'
    started = {
        "id": "fc_req_1_1",
        "type": "function_call",
        "status": "in_progress",
        "call_id": "call_1",
        "name": "get_weather",
        "arguments": "",
    }
    assert found[8]["item"] == started
    assert (found[11]["name"], found[11]["arguments"]) == ("get_weather", arguments)
    assert found[12]["item"] == {**started, "status": "completed", "arguments": arguments}


def test_thoughts_are_told_where_the_backend_tells_them() -> None:
    found = events(streamed(asked(), THOUGHT))
    assert kinds(found)[2:9] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
    ]
    assert found[8]["item"] == {
        "id": "rs_req_1_0",
        "type": "reasoning",
        "status": "completed",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Hmm."}],
    }


def test_a_refusal_is_a_part_of_its_own_kind() -> None:
    assert folded(asked(), REFUSED)["output"][0]["content"] == [{"type": "refusal", "refusal": "I will not."}]
    assert "refusal.done" in kinds(events(streamed(asked(), REFUSED)))


def test_a_custom_tool_gets_its_text_and_a_namespace_its_tool() -> None:
    answer = [
        ROLE,
        chunk(call(0, "a", "apply_patch", '{"input":')),
        chunk(call(0, arguments='"+1\\n"}')),
        chunk(call(1, "b", "mcp__files__read", "{}")),
        chunk({}, "tool_calls"),
    ]
    found = events(streamed(asked(tools=[PATCH, SERVER]), answer))
    assert kinds(found)[2:6] == [
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]
    patched, read = found[-1]["response"]["output"]
    assert (patched["type"], patched["name"], patched["input"]) == ("custom_tool_call", "apply_patch", "+1\n")
    assert (read["type"], read["namespace"], read["name"]) == ("function_call", "mcp__files", "read")


def test_a_custom_tool_that_is_called_out_of_form_gets_what_the_model_wrote() -> None:
    answer = [ROLE, chunk(call(0, "a", "apply_patch", "+1")), chunk({}, "tool_calls")]
    assert folded(asked(tools=[PATCH]), answer)["output"][0]["input"] == "+1"


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_is_incomplete(finish: str, reason: str) -> None:
    last = events(streamed(asked(), [*CUT[:-1], chunk({}, finish)]))[-2:]
    assert kinds(last) == ["output_item.done", "incomplete"]
    assert last[0]["item"]["status"] == "incomplete"
    assert last[1]["response"]["incomplete_details"] == {"reason": reason}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_every_event_is_one_of_the_official_types_and_the_last_has_the_whole(answer: Sequence[bytes]) -> None:
    found = events(streamed(asked(tools=[{"type": "function", "name": "f"}]), answer))
    for each in found:
        EVENT.validate_python(each, strict=True)
    whole = folded(asked(tools=[{"type": "function", "name": "f"}]), answer)
    Response.model_validate(whole)
    assert found[-1]["response"] == whole
    assert [each["item"] for each in found if each["type"] == "response.output_item.done"] == whole["output"]


@given(cut_anywhere())
def test_it_does_not_matter_how_the_bytes_are_cut(cut: tuple[Sequence[bytes], list[bytes]]) -> None:
    answer, pieces = cut
    assert streamed(asked(), pieces) == streamed(asked(), answer)
    assert folded(asked(), pieces) == folded(asked(), answer)


@pytest.mark.parametrize(
    ("answer", "error"),
    [(HELLO[:-1], PeerFault), ([event(b"{")], PeerFault), ([event(b'{"error":{"message":"secret"}}')], RetryElsewhere)],
    ids=["cut", "no JSON", "error"],
)
def test_an_odd_answer_is_the_executors_fault(answer: Sequence[bytes], error: type[Exception]) -> None:
    with pytest.raises(error):
        streamed(asked(), answer)
    with pytest.raises(error):
        folded(asked(), answer)


def test_usage_that_is_none_is_the_peers_fault() -> None:
    with pytest.raises(PeerFault):
        streamed(asked(), HELLO, Done(3, 2, b"[]"))


def test_a_failure_after_content_has_what_came_and_why() -> None:
    stream = asked().stream()
    written = (
        stream.feed(HELLO[0]) + stream.feed(HELLO[1]) + stream.failed(Failure(504, "it fell silent", code="stalled"))
    )
    found = events(written)
    assert [each["sequence_number"] for each in found] == list(range(len(found)))
    last = found[-1]
    EVENT.validate_python(last)
    assert last["type"] == "response.failed"
    assert (last["response"]["status"], last["response"]["error"]) == (
        "failed",
        {"code": "server_error", "message": "it fell silent"},
    )
    assert last["response"]["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Failure(429, "no", code="busy"), "rate_limit_exceeded"),
        (Failure(400, "no", code="context_length_exceeded"), "context_length_exceeded"),
        (Failure(402, "no", code="price"), "invalid_prompt"),
        (Failure(503, "no", code="no_executor"), "server_error"),
    ],
)
def test_a_failure_before_everything_is_a_response_too(failure: Failure, code: str) -> None:
    found = events(asked().stream().failed(failure))
    assert kinds(found) == ["created", "in_progress", "failed"]
    assert found[-1]["response"]["error"]["code"] == code


def test_errors_are_told_in_openais_words() -> None:
    assert msgspec.json.decode(Responses().refusal(Failure(400, "no", "input", "c"), "req_1")) == {
        "error": {"message": "no", "type": "invalid_request_error", "param": "input", "code": "c"}
    }
