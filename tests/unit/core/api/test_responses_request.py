from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.api.request import ApiRequest
from lloom.core.api.responses import Responses
from lloom.core.errors import CallerFault

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a place",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}},
    "strict": True,
}
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edit files",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: patch"},
}
SERVER = {
    "type": "namespace",
    "name": "mcp__files",
    "description": "Files",
    "tools": [{"type": "function", "name": "read"}],
}


def request(**fields: Any) -> ApiRequest:
    body = msgspec.json.encode({"model": "M", "input": "Hello", **fields})
    return Responses().read(body, "req_1").request


def chat(**fields: Any) -> dict[str, Any]:
    return dict(msgspec.json.decode(request(**fields).body))


def talk(*items: Any, **fields: Any) -> list[dict[str, Any]]:
    return list(chat(input=list(items), **fields)["messages"])


def fault(**fields: Any) -> CallerFault:
    with pytest.raises(CallerFault) as caught:
        request(**fields)
    return caught.value


def says(role: str, *parts: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": list(parts)}


def call(id: str = "call_1", name: str = "get_weather", arguments: str = "{}", **more: Any) -> dict[str, Any]:
    return {"type": "function_call", "id": "fc_1", "call_id": id, "name": name, "arguments": arguments, **more}


def output(content: Any = "15 degrees", id: str = "call_1") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": content}


def called(id: str = "call_1", name: str = "get_weather", arguments: str = "{}") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


TEXT = {"type": "input_text", "text": "What is it?"}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x", "content": None}


def test_a_text_is_what_the_user_says() -> None:
    assert chat() == {"model": "M", "messages": [{"role": "user", "content": "Hello"}]}
    asked = request()
    assert (asked.model, asked.operation, asked.stream, asked.max_output) == ("m", "chat", False, None)
    assert not asked.features
    assert not asked.at_most


def test_instructions_and_what_developers_say_first_become_one_system_message() -> None:
    assert talk(
        says("developer", {"type": "input_text", "text": "Be kind."}), says("user", TEXT), instructions="Be brief."
    ) == [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "What is it?"},
    ]


def test_messages_may_be_written_short() -> None:
    assert talk(
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ) == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]


def test_images_and_files_come_along() -> None:
    image = {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "original"}
    file = {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}
    asked = request(input=[says("user", TEXT, image, file)])
    assert msgspec.json.decode(asked.body)["messages"][0]["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "high"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBE"}},
    ]
    assert asked.features == {"vision", "file"}


def test_what_a_response_put_out_can_be_put_in_again() -> None:
    said = {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [
            {"type": "output_text", "text": "I'll", "annotations": [], "logprobs": []},
            {"type": "output_text", "text": " look.", "annotations": []},
        ],
    }
    assert talk(
        says("user", TEXT),
        REASONING,
        said,
        call(arguments='{"location":"Paris"}', status="completed"),
        call("call_2"),
        output(),
        output([{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}], "call_2"),
        tools=[WEATHER],
    ) == [
        {"role": "user", "content": "What is it?"},
        {
            "role": "assistant",
            "content": "I'll look.",
            "tool_calls": [called(arguments='{"location":"Paris"}'), called("call_2")],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "15 degrees"},
        {"role": "tool", "tool_call_id": "call_2", "content": "one\ntwo"},
    ]


def test_pictures_of_tools_follow_their_results() -> None:
    picture = {"type": "input_image", "image_url": "data:image/png;base64,iVBO"}
    assert talk(says("user", TEXT), call(), output([picture]), tools=[WEATHER])[2:] == [
        {"role": "tool", "tool_call_id": "call_1", "content": "(shown below: 1 from call_1)"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "From call_1:"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}},
            ],
        },
    ]


def test_tools_become_functions() -> None:
    asked = request(tools=[WEATHER, PATCH, SERVER])
    first, second, third = msgspec.json.decode(asked.body)["tools"]
    assert first == {"type": "function", "function": {key: value for key, value in WEATHER.items() if key != "type"}}
    assert second["function"]["name"] == "apply_patch"
    assert second["function"]["parameters"]["required"] == ["input"]
    assert second["function"]["description"].endswith("lark grammar:\nstart: patch")
    assert third == {"type": "function", "function": {"name": "mcp__files__read"}}
    assert asked.features == {"tools"}


def test_calls_of_custom_tools_and_of_namespaces_go_in_as_they_came_out() -> None:
    assert talk(
        says("user", TEXT),
        {"type": "custom_tool_call", "call_id": "c", "name": "apply_patch", "input": "+a"},
        call("d", "read", namespace="mcp__files"),
        {"type": "custom_tool_call_output", "call_id": "c", "output": "ok"},
        output(id="d"),
        tools=[PATCH, SERVER],
    )[1]["tool_calls"] == [called("c", "apply_patch", '{"input":"+a"}'), called("d", "mcp__files__read")]


@pytest.mark.parametrize(
    ("choice", "chosen", "tools"),
    [
        ("auto", "auto", 2),
        ("required", "required", 2),
        ("none", "none", 2),
        ({"type": "function", "name": "get_weather"}, {"type": "function", "function": {"name": "get_weather"}}, 2),
        ({"type": "custom", "name": "apply_patch"}, {"type": "function", "function": {"name": "apply_patch"}}, 2),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_weather"}]},
            "required",
            1,
        ),
    ],
)
def test_a_choice_of_tools_is_kept(choice: Any, chosen: Any, tools: int) -> None:
    asked = chat(tools=[WEATHER, PATCH], tool_choice=choice, parallel_tool_calls=False)
    assert (asked["tool_choice"], len(asked["tools"]), asked["parallel_tool_calls"]) == (chosen, tools, False)


def test_a_choice_of_nothing_is_dropped_where_there_are_no_tools() -> None:
    assert chat(tools=[], tool_choice="auto", parallel_tool_calls=True) == chat()
    assert fault(tool_choice="required").param == "tool_choice"


def test_what_shapes_the_answer_is_passed_on() -> None:
    asked = chat(
        temperature=0.5, top_p=0.9, max_output_tokens=9, reasoning={"effort": "low", "summary": "auto"}, stream=True
    )
    del asked["model"], asked["messages"]
    assert asked == {
        "temperature": 0.5,
        "top_p": 0.9,
        "max_completion_tokens": 9,
        "reasoning_effort": "low",
        "stream": True,
    }


def test_a_schema_for_the_text_is_passed_on() -> None:
    form = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    asked = request(text={"format": form})
    assert msgspec.json.decode(asked.body)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
    }
    assert asked.features == {"json_schema"}
    assert chat(text={"format": {"type": "json_object"}})["response_format"] == {"type": "json_object"}
    assert chat(text={"format": {"type": "text"}, "verbosity": "low"}) == chat()


def test_requests_of_one_cache_key_belong_together() -> None:
    mine = request(prompt_cache_key="mine").affinity
    assert mine
    assert mine == request(prompt_cache_key="mine", input="Something else.").affinity
    assert mine != request(prompt_cache_key="yours").affinity


@pytest.mark.parametrize(
    "field",
    [
        {"store": True},
        {"store": False},
        {"include": ["reasoning.encrypted_content"]},
        {"truncation": "auto"},
        {"metadata": {"a": "b"}},
        {"prompt_cache_key": "k"},
        {"service_tier": "auto"},
        {"previous_response_id": None},
        {"background": False},
        {"stream_options": {"include_obfuscation": False}},
        {"client_metadata": {"x": "y"}},
    ],
    ids=str,
)
def test_what_is_harmless_is_ignored(field: dict[str, Any]) -> None:
    assert chat(**field) == chat()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [says("user", {"type": "input_audio"})]}, "input[0].content[0].type"),
        ({"input": [says("user", {"type": "input_image", "file_id": "f"})]}, "input[0].content[0]"),
        ({"input": [says("user", {"type": "input_file", "file_url": "https://x"})]}, "input[0].content[0]"),
        ({"input": [says("assistant", {"type": "input_image", "image_url": "https://x"})]}, "input[0].content"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"input": ["Hello", output()]}, "input[0]"),
        ({"input": [{"role": "user", "content": "x"}, output()]}, "input"),
        ({"temperature": 2.5}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"reasoning": {"effort": "enormous"}}, "reasoning.effort"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        (
            {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "mcp", "name": "m"}]}]},
            "tools[0].tools[0].type",
        ),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "name": 7}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "name": "a b", "schema": {}}}}, "text.format"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True}, "background"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"model": "no such name"}, "model"),
    ],
    ids=str,
)
def test_what_is_wrong_or_cannot_be_served_is_named(fields: dict[str, Any], param: str) -> None:
    wrong = fault(**fields)
    assert wrong.param == param
    assert f"'{param}'" in str(wrong) or wrong.code == "model_not_found"


def test_what_to_do_without_a_store_is_said() -> None:
    assert "send the whole conversation as 'input'" in str(fault(previous_response_id="resp_1"))
    assert "'web_search'" in str(fault(tools=[{"type": "web_search"}]))


json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["message", "function_call", "custom"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "text", "content", "name", "tools"]), inner)
    ),
    max_leaves=10,
)


@given(json, json, json, json)
def test_nonsense_is_the_callers_fault_and_nothing_else(items: Any, tools: Any, choice: Any, text: Any) -> None:
    with contextlib.suppress(CallerFault):
        request(input=items, tools=tools, tool_choice=choice, text=text)
