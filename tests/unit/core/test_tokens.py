from __future__ import annotations

import base64
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core import tokens
from tests.unit.core.test_media import png, url

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


LONG = "word " * 5000


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "$comment": LONG}}},
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "required": [LONG]}}},
        {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"default": LONG}}}}},
        {"type": "function", "function": {"name": "f", "returns": LONG}},
        {"type": LONG},
    ],
)
def test_what_the_published_rule_leaves_out_of_tools_is_no_free_prompt(tool: dict[str, object]) -> None:
    assert tokens.count_messages(WEATHER, [tool], "o200k_base") > 0.4 * tokens.count(LONG, "o200k_base")


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


# Each published by OpenAI ("Images and vision", calculating costs), but for the small one: no image has less than a tile.
@pytest.mark.parametrize(
    ("size", "detail", "expected"),
    [
        ((1024, 1024), "high", 765),
        ((2048, 4096), "high", 1105),
        ((4096, 8192), "low", 85),
        ((512, 512), "auto", 255),
        ((1, 1), None, 255),
        ((2048, 768), "high", 85 + 8 * 170),
    ],
)
def test_an_image_counts_by_size_and_detail_as_openai_published(
    size: tuple[int, int], detail: str | None, expected: int
) -> None:
    assert tokens.image({"url": url(png(*size)), "detail": detail}) == expected


@pytest.mark.parametrize("where", ["https://example.org/cat.png", "data:image/png;base64,AAAA", None])
def test_an_image_of_unknown_size_counts_as_the_largest(where: str | None) -> None:
    assert tokens.image({"url": where}) == 85 + 8 * 170
    assert tokens.image({"url": where, "detail": "low"}) == 85


@given(st.integers(1, 100_000), st.integers(1, 100_000))
def test_no_image_counts_more_than_one_of_unknown_size_nor_less_than_a_tile(width: int, height: int) -> None:
    found = tokens.image({"url": url(png(width, height))})
    assert 85 + 170 <= found <= tokens.image({})
    assert found == tokens.image({"url": url(png(height, width))})


def test_an_image_counts_beside_the_text() -> None:
    image = {"type": "image_url", "image_url": {"url": url(png(1024, 1024))}}
    parts = [{"type": "text", "text": "What is it?"}, image]
    text = tokens.count_messages([{"role": "user", "content": "What is it?"}], [], "o200k_base")
    assert tokens.count_messages([{"role": "user", "content": parts}], [], "o200k_base") == text + 765


def counted(part: dict[str, object]) -> int:
    """What a part adds to a message."""
    bare = tokens.count_messages([{"role": "user", "content": []}], [], "o200k_base")
    return tokens.count_messages([{"role": "user", "content": [part]}], [], "o200k_base") - bare


def test_a_sound_counts_by_its_length_and_a_file_by_its_bytes() -> None:
    second = base64.b64encode(bytes(1000)).decode()
    assert counted({"type": "input_audio", "input_audio": {"data": second * 3, "format": "mp3"}}) in (30, 31)
    assert counted({"type": "file", "file": {"file_data": "A" * 1_000_000}}) == 250_000
    assert counted({"type": "video_url", "video_url": {"url": "data:video/mp4;base64," + "A" * 8_000}}) == 2_005
    assert 0 < counted({"type": "file", "file": {"file_id": "file-abc"}}) < 20


def test_what_is_called_counts_however_it_is_written() -> None:
    def asked(**fields: object) -> int:
        return tokens.count_messages([{"role": "assistant", "content": None, **fields}], [], "o200k_base")

    function = {"name": "get_weather", "arguments": '{"city":"Oslo"}'}
    newer = asked(tool_calls=[{"id": "c", "type": "function", "function": function}])
    assert asked(function_call=function) == newer > asked() + 3
    custom = {"name": "get_weather", "input": '{"city":"Oslo"}'}
    assert asked(tool_calls=[{"id": "c", "type": "custom", "custom": custom}]) == newer


def test_a_custom_tool_counts_with_its_grammar() -> None:
    def tool(**fields: object) -> int:
        custom = {"name": "calculate", "description": "Adds up", **fields}
        return tokens.count_messages([], [{"type": "custom", "custom": custom}], "o200k_base")

    plain = tool()
    same = {"type": "function", "function": {"name": "calculate", "description": "Adds up"}}
    assert plain == tokens.count_messages([], [same], "o200k_base")
    assert tool(format={"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: NUMBER"}}) > plain + 5


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


def test_a_table_is_loaded_by_the_first_count_of_its_encoding() -> None:
    check = (
        "from lloom.core import tokens; names = sorted(tokens.ENCODINGS); assert not any(map(tokens.loaded, names)); "
        "tokens.count('', 'p50k_base'); assert [name for name in names if tokens.loaded(name)] == ['p50k_base']"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_importing_the_module_loads_neither_tiktoken_nor_litellm() -> None:
    check = "import sys, lloom.core.tokens; sys.exit(bool({'tiktoken', 'litellm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
