from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core import tokens

# The chats of the OpenAI cookbook, "How to count tokens with tiktoken"; the API itself reported the numbers expected below.
JARGON = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
    },
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    },
]
WEATHER = [
    {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]
WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_current_weather",
        "description": "Get the current weather in a given location",
        "parameters": {
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                "unit": {
                    "type": "string",
                    "description": "The unit of temperature to return",
                    "enum": ["celsius", "fahrenheit"],
                },
            },
            "required": ["location"],
        },
    },
}


@pytest.mark.parametrize(("encoding", "expected"), [("cl100k_base", 129), ("o200k_base", 124)])
def test_a_chat_with_names_counts_as_openai_published(encoding: str, expected: int) -> None:
    assert tokens.count_messages(JARGON, [], encoding) == expected


@pytest.mark.parametrize(("encoding", "expected"), [("cl100k_base", 105), ("o200k_base", 101)])
def test_a_chat_with_tools_counts_as_openai_published(encoding: str, expected: int) -> None:
    assert tokens.count_messages(WEATHER, [WEATHER_TOOL], encoding) == expected


@pytest.mark.parametrize(
    ("encoding", "expected"), [("p50k_base", 14), ("cl100k_base", 9), ("o200k_base", 8), ("o200k_harmony", 8)]
)
def test_every_encoding_is_there_offline(encoding: str, expected: int) -> None:
    assert tokens.count("お誕生日おめでとう", encoding) == expected


def test_an_unknown_encoding_is_named() -> None:
    with pytest.raises(ValueError, match="'r50k_base'"):
        tokens.count("", "r50k_base")


def test_special_tokens_in_a_prompt_are_plain_text() -> None:
    assert tokens.count("<|endoftext|>", "o200k_base") > 1


def test_a_million_blanks_are_counted_without_a_panic() -> None:
    assert 1_000 < tokens.count(" " * 1_000_000 + "x", "o200k_base") < 50_000


def test_a_lone_surrogate_is_counted() -> None:
    assert tokens.count("\ud800", "o200k_base") > 0


def test_cutting_a_long_text_changes_its_count_hardly() -> None:
    assert 50_000 <= tokens.count(" truth" * 50_000, "o200k_base") <= 50_000 + 2 * 3


def test_an_image_counts_by_its_detail() -> None:
    def chat(detail: str) -> list[dict[str, object]]:
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": detail}}
        return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}]

    text = tokens.count_messages([{"role": "user", "content": "What is it?"}], [], "o200k_base")
    assert tokens.count_messages(chat("low"), [], "o200k_base") == text + 85
    assert tokens.count_messages(chat("high"), [], "o200k_base") == text + 1445
    assert tokens.count_messages(chat("auto"), [], "o200k_base") == text + 1445


def test_tool_calls_and_their_results_count() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Oslo"}'}}
    empty = {"role": "assistant", "content": None}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}
    without = tokens.count_messages([empty], [], "o200k_base")
    with_call = tokens.count_messages([{**empty, "tool_calls": [call]}], [], "o200k_base")
    assert with_call > without
    assert tokens.count_messages([{**empty, "tool_calls": [call]}, result], [], "o200k_base") > with_call


def test_a_nested_schema_counts_more_than_a_flat_one() -> None:
    def tool(schema: object) -> dict[str, object]:
        return {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": schema}}}}

    flat = tool({"type": "object"})
    nested = tool({"type": "object", "properties": {"b": {"type": "string", "description": "A word"}}})
    items = tool({"type": "object", "items": {"properties": {"b": {"type": "string", "description": "A word"}}}})
    counts = [tokens.count_messages([], [t], "o200k_base") for t in (flat, nested, items)]
    assert counts[0] < counts[1] == counts[2]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "name", "tool_calls", "function", "parameters", "properties", "type", "enum"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.lists(st.dictionaries(st.sampled_from(["role", "content", "tool_calls", "name"]), JSON)), st.lists(JSON))
def test_no_json_breaks_the_count(messages: list[dict[str, object]], tools: list[object]) -> None:
    assert tokens.count_messages(messages, tools, "cl100k_base") >= tokens.REPLY  # type: ignore[arg-type]


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=200))
def test_the_pieces_of_a_text_join_to_it(text: str) -> None:
    pieces = tokens.split(text, "o200k_base")
    assert "".join(pieces) == text
    assert len(pieces) == tokens.count(text, "o200k_base")


def test_importing_the_module_loads_neither_tiktoken_nor_litellm() -> None:
    check = "import sys, lloom.core.tokens; sys.exit(bool({'tiktoken', 'litellm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
