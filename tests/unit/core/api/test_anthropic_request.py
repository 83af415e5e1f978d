from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.api.anthropic import Messages, prompt
from lloom.core.api.request import ApiRequest
from lloom.core.errors import CallerFault

HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "name": "get_weather",
    "description": "The weather in a place",
    "input_schema": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0K"}}


def request(**fields: Any) -> ApiRequest:
    body = msgspec.json.encode({"model": "M", "max_tokens": 1024, "messages": HELLO, **fields})
    return Messages().read(body, "req_1").request


def chat(**fields: Any) -> dict[str, Any]:
    return dict(msgspec.json.decode(request(**fields).body))


def talk(*messages: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    return list(chat(messages=list(messages), **fields)["messages"])


def fault(**fields: Any) -> CallerFault:
    with pytest.raises(CallerFault) as caught:
        request(**fields)
    return caught.value


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def text(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **more}


def use(id: str = "toolu_1", **input: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": "get_weather", "input": input}


def result(content: Any = "15 degrees", id: str = "toolu_1", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id, "content": content, **more}


def test_the_simplest_request_is_a_chat_with_a_limit() -> None:
    assert chat() == {
        "model": "M",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_completion_tokens": 1024,
    }
    asked = request()
    assert (asked.model, asked.operation, asked.stream, asked.max_output) == ("m", "chat", False, 1024)
    assert not asked.features


def test_the_limit_that_had_to_be_named_may_be_more_than_a_model_writes() -> None:
    assert request().at_most


@pytest.mark.parametrize(
    "system", ["Be brief.\nBe kind.", [text("Be brief.", cache_control={"type": "ephemeral"}), text("Be kind.")]]
)
def test_a_system_prompt_comes_first(system: Any) -> None:
    assert talk(*HELLO, system=system)[0] == {"role": "system", "content": "Be brief.\nBe kind."}


def test_text_in_blocks_stays_plain_text() -> None:
    assert talk(user(text("a", cache_control={"type": "ephemeral"}), text("b"))) == [
        {"role": "user", "content": "a\nb"}
    ]


def test_images_become_urls() -> None:
    linked = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    asked = request(messages=[user(PNG, linked, text("What is it?"))])
    assert msgspec.json.decode(asked.body)["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "text", "text": "What is it?"},
    ]
    assert asked.features == {"vision"}


def test_documents_become_text_or_files() -> None:
    plain = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "abc"}, "title": "T"}
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}}
    assert talk(user(plain)) == [{"role": "user", "content": "T\nabc"}]
    assert talk(user(pdf))[0]["content"] == [
        {"type": "file", "file": {"filename": "document.pdf", "file_data": "data:application/pdf;base64,JVBE"}}
    ]


def test_a_turn_with_tools_goes_there_and_back() -> None:
    thought = {"type": "thinking", "thinking": "…", "signature": "s"}
    hidden = {"type": "redacted_thinking", "data": "x"}
    assert talk(
        *HELLO,
        assistant(thought, hidden, text("I'll look."), use(location="Paris"), use("toolu_2")),
        user(result(), result([text("one"), text("two")], "toolu_2"), text("And?")),
        tools=[WEATHER],
    ) == [
        {"role": "user", "content": "Hello"},
        {
            "role": "assistant",
            "content": "I'll look.",
            "tool_calls": [
                {
                    "id": "toolu_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"location":"Paris"}'},
                },
                {"id": "toolu_2", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "15 degrees"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": "one\ntwo"},
        {"role": "user", "content": "And?"},
    ]


def test_a_failed_tool_says_so_and_its_pictures_follow_all_results() -> None:
    turn = talk(
        *HELLO,
        assistant(use(), use("toolu_2")),
        user(result([text("see"), PNG], is_error=True), result(None, "toolu_2")),
        tools=[WEATHER],
    )
    assert turn[2:] == [
        {"role": "tool", "tool_call_id": "toolu_1", "content": "Error:\nsee\n(shown below: 1 from toolu_1)"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": ""},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "From toolu_1:"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0K"}},
            ],
        },
    ]


def test_tools_become_functions() -> None:
    asked = request(tools=[WEATHER, {"type": "custom", "name": "f", "strict": True, "input_schema": {}}])
    assert msgspec.json.decode(asked.body)["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "The weather in a place",
                "parameters": WEATHER["input_schema"],
            },
        },
        {"type": "function", "function": {"name": "f", "parameters": {}, "strict": True}},
    ]
    assert asked.features == {"tools"}


@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "get_weather"},
            {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
        ),
        (
            {"type": "auto", "disable_parallel_tool_use": True},
            {"tool_choice": "auto", "parallel_tool_calls": False},
        ),
    ],
)
def test_a_choice_of_tools_is_kept(choice: dict[str, Any], chosen: dict[str, Any]) -> None:
    asked = chat(tools=[WEATHER], tool_choice=choice)
    assert {key: asked[key] for key in ("tool_choice", "parallel_tool_calls") if key in asked} == chosen


def test_a_choice_of_nothing_is_dropped_where_there_are_no_tools() -> None:
    assert "tool_choice" not in chat(tool_choice={"type": "auto"})
    assert fault(tool_choice={"type": "any"}).param == "tool_choice"
    assert fault(tool_choice={"type": "tool"}, tools=[WEATHER]).param == "tool_choice.name"
    assert fault(tool_choice={"type": "tool", "name": "x"}, tools=[WEATHER]).param == "tool_choice"


def test_what_shapes_the_answer_is_passed_on() -> None:
    asked = chat(temperature=0.5, top_p=0.9, top_k=40, stop_sequences=["END"], stream=True)
    assert {name: asked[name] for name in ("temperature", "top_p", "top_k", "stop", "stream")} == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "stop": ["END"],
        "stream": True,
    }


def test_a_schema_for_the_answer_is_passed_on() -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    asked = request(output_config={"format": form, "effort": "high"})
    assert msgspec.json.decode(asked.body)["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert asked.features == {"json_schema"}


def test_an_answer_that_was_begun_needs_a_model_that_goes_on() -> None:
    assert request(messages=[*HELLO, assistant(text("The answer is ("))]).features == {"prefill"}


@pytest.mark.parametrize(
    "field",
    [
        {"metadata": {"user_id": "u"}},
        {"thinking": {"type": "enabled", "budget_tokens": 2048}},
        {"service_tier": "auto"},
        {"context_management": {"edits": []}},
        {"cache_control": {"type": "ephemeral"}},
        {"container": None},
        {"thread": None},
        {"something_new": 1},
    ],
    ids=str,
)
def test_what_is_harmless_is_ignored(field: dict[str, Any]) -> None:
    assert chat(**field) == chat()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [user({"type": "video"})]}, "messages[0].content[0].type"),
        ({"messages": [user({"type": "image", "source": {"type": "file"}})]}, "messages[0].content[0].source.type"),
        ({"messages": [user(use())]}, "messages[0].content[0]"),
        ({"messages": [*HELLO, assistant(PNG)]}, "messages[1].content[0]"),
        ({"messages": [*HELLO, assistant({**use(), "input": [1]})]}, "messages[1].content[0].input"),
        ({"messages": [*HELLO, user(result())]}, "messages"),
        ({"messages": [*HELLO, assistant(use())]}, "messages"),
        ({"temperature": 1.5}, "temperature"),
        ({"stop_sequences": list("abcde")}, "stop_sequences"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{"url": "https://x"}]}, "mcp_servers"),
        ({"inference_geo": "eu"}, "inference_geo"),
        ({"thread": {"type": "create"}}, "thread"),
        ({"model": "no such name"}, "model"),
    ],
    ids=str,
)
def test_what_is_wrong_or_cannot_be_served_is_named(fields: dict[str, Any], param: str) -> None:
    wrong = fault(**fields)
    assert wrong.param == param
    assert f"'{param}'" in str(wrong) or wrong.code == "model_not_found"


def test_a_tool_that_runs_elsewhere_is_named() -> None:
    assert "web_search_20250305" in str(fault(tools=[{"type": "web_search_20250305", "name": "web_search"}]))


def test_a_count_needs_no_limit() -> None:
    body = msgspec.json.encode({"model": "m", "system": "S", "messages": HELLO, "tools": [WEATHER]})
    assert prompt(body)["messages"] == [{"role": "system", "content": "S"}, {"role": "user", "content": "Hello"}]
    assert prompt(body)["tools"][0]["function"]["name"] == "get_weather"


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "content"]), inner),
    max_leaves=10,
)


@given(json, json, json)
def test_nonsense_is_the_callers_fault_and_nothing_else(messages: Any, system: Any, tools: Any) -> None:
    with contextlib.suppress(CallerFault):
        request(messages=messages, system=system, tools=tools)
