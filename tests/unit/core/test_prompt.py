"""What a prompt is counted for, by who pays and who is paid."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core import tokens
from lloom.core.api.request import Operation
from lloom.core.prompt import count, plain

ENCODING = "o200k_base"
TOKENS = st.lists(st.integers(0, 200_000), min_size=1, max_size=20)
TEXTS = st.text(max_size=40)


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Loading an encoding takes longer than hypothesis waits for an example."""
    tokens.count("", ENCODING)


def body(**fields: Any) -> bytes:
    return msgspec.json.encode({"model": "m", **fields})


def test_a_chat_counts_its_messages_and_its_tools() -> None:
    messages = [{"role": "user", "content": "How tall is the Eiffel tower?"}]
    function = {"name": "height", "description": "Height of a building", "parameters": {"type": "object"}}
    tools = [{"type": "function", "function": function}]
    without = count("chat", body(messages=messages), ENCODING)
    assert without == tokens.count_messages(messages, [], ENCODING) > 8
    with_tools = count("chat", body(messages=messages, tools=tools), ENCODING)
    assert with_tools == tokens.count_messages(messages, tools, ENCODING) > without
    assert count("chat", body(messages=messages, functions=[function]), ENCODING) == with_tools


@pytest.mark.parametrize("field", ["documents", "chat_template_kwargs", "response_format"])
def test_what_a_template_may_show_is_counted(field: str) -> None:
    messages, text = [{"role": "user", "content": "Hi"}], "word " * 1000
    without = count("chat", body(messages=messages), ENCODING)
    assert count("chat", body(messages=messages, **{field: None}), ENCODING) == without
    given = {"date_string": text}
    assert count("chat", body(messages=messages, **{field: given}), ENCODING) == without + tokens.count(
        msgspec.json.encode(given).decode(), ENCODING
    )


@pytest.mark.parametrize("field", ["documents", "chat_template_kwargs", "response_format", "tools", "functions"])
def test_what_backends_make_something_else_of_is_known(field: str) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    assert plain("chat", body(messages=messages, **{field: None}))
    assert not plain("chat", body(messages=messages, **{field: [{"type": "function"}]}))
    assert not plain("chat", b"{")
    assert plain("completions", body(prompt="Hi"))


@given(st.lists(TEXTS, min_size=1, max_size=5), st.lists(TOKENS, min_size=1, max_size=5))
def test_texts_count_each_for_itself_and_tokens_as_they_are(texts: list[str], lists: list[list[int]]) -> None:
    expected = sum(tokens.count(text, ENCODING) for text in texts)
    assert count("embeddings", body(input=texts), ENCODING) == expected
    assert count("completions", body(prompt=texts), ENCODING) == expected
    assert count("embeddings", body(input=lists), ENCODING) == sum(map(len, lists))
    assert count("completions", body(prompt=lists[0]), ENCODING) == len(lists[0])


@given(TEXTS, TEXTS)
def test_what_follows_a_gap_is_read_as_well(text: str, suffix: str) -> None:
    whole = tokens.count(text, ENCODING) + tokens.count(suffix, ENCODING)
    assert count("completions", body(prompt=text, suffix=suffix), ENCODING) == whole


@pytest.mark.parametrize("operation", ["chat", "completions", "embeddings"])
def test_what_cannot_be_read_counts_by_its_bytes(operation: Operation) -> None:
    assert count(operation, b"[" * 40, ENCODING) == 10
    assert count(operation, b'{"messages":1,"prompt":{},"input":1.5}', ENCODING) == 9
