from __future__ import annotations

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.api.chat import parse
from lloom.core.api.request import ApiRequest
from lloom.core.errors import CallerFault

HELLO = [{"role": "user", "content": "hello"}]


def ask(**fields: Any) -> ApiRequest:
    return parse(msgspec.json.encode({"model": "m", "messages": HELLO, **fields}))


def fault(**fields: Any) -> CallerFault:
    with pytest.raises(CallerFault) as caught:
        ask(**fields)
    return caught.value


def test_a_minimal_request_asks_for_a_plain_answer_and_nothing_special() -> None:
    body = b'{"model":"SmolLM2-135M","messages":[{"role":"user","content":"h\xc3\xa9"}]}'
    assert parse(body) == ApiRequest(
        operation="chat",
        body=body,
        model="smollm2-135m",
        stream=False,
        include_usage=False,
        choices=1,
        max_output=None,
        text_bytes=3,
        features=frozenset(),
    )


def test_null_stands_for_a_field_left_out() -> None:
    plain = ask()
    nulls = ask(
        stream=None, max_tokens=None, n=None, temperature=None, tools=None, stop=None, response_format=None, seed=None
    )
    assert (nulls.stream, nulls.max_output, nulls.choices, nulls.features) == (
        plain.stream,
        plain.max_output,
        plain.choices,
        plain.features,
    )


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_output_limit_count(field: str) -> None:
    assert ask(**{field: 7}).max_output == 7


def test_usage_is_included_in_a_stream_that_asks_for_it() -> None:
    assert ask(stream=True, stream_options={"include_usage": True}).include_usage
    assert not ask(stream=True, stream_options={}).include_usage


@pytest.mark.parametrize(
    ("fields", "features"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"}, {"tools"}),
        ({"functions": [{"name": "f"}]}, {"tools"}),
        ({"tools": [], "tool_choice": "auto"}, set()),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs"}),
        ({"response_format": {"type": "text"}}, set()),
        ({"response_format": {"type": "json_object"}}, {"json"}),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}}, {"json_schema"}),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "HTTPS://x/y.png"}}]}
                ]
            },
            {"vision"},
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, set()),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": []}, *HELLO]}, set()),
        ({"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}, {"audio"}),
    ],
)
def test_the_features_that_an_offer_must_have(fields: dict[str, Any], features: set[str]) -> None:
    assert ask(**fields).features == features


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [*HELLO, {"role": "wizard", "content": "x"}]}, "messages[1].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, "messages[0].content[0].type"),
        ({"model": 5}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "perhaps"}, "tool_choice"),
        ({"tool_choice": {"function": {"name": "f"}}}, "tool_choice.type"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": 5}, "stop"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], param: str) -> None:
    error = fault(**fields)
    assert (error.status, error.param) == (400, param)
    assert param in str(error)


@pytest.mark.parametrize("field", ["model", "messages"])
def test_a_missing_field_is_named(field: str) -> None:
    body = {"model": "m", "messages": HELLO}
    del body[field]
    with pytest.raises(CallerFault, match=f"Missing required parameter: '{field}'") as caught:
        parse(msgspec.json.encode(body))
    assert (caught.value.param, caught.value.code) == (field, "missing_required_parameter")


@pytest.mark.parametrize("name", ["", "two words", "x" * 200])
def test_a_name_that_cannot_be_a_model_does_not_exist(name: str) -> None:
    error = fault(model=name)
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")


HEAD = b'{"model":"m","messages":[{"role":"user","content":"x"}],'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        HEAD + b'"temperature":NaN}',
        HEAD + b'"temperature":Infinity}',
        HEAD + b'"temperature":1e999}',
        HEAD + b'"other":NaN}',
        HEAD + b'"other":"\xff"}',
        b'{"model":"\xff","messages":[]}',
        HEAD + b'"other":"\\ud800"}',
        HEAD + b'"other":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        HEAD + b'"tools":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"\xef\xbb\xbf" + HEAD + b'"n":1}',
        HEAD + b'"n":1} trailing',
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(CallerFault) as caught:
        parse(body)
    assert caught.value.status == 400


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = [
    *("model", "messages", "stream", "stream_options", "max_tokens", "n", "temperature", "logprobs", "tools"),
    *("tool_choice", "response_format", "stop", "logit_bias", "functions"),
]


@given(st.dictionaries(st.sampled_from(FIELDS), anything))
def test_arbitrary_json_is_a_request_or_the_callers_fault(fields: dict[str, Any]) -> None:
    for body in ({"model": "m", "messages": HELLO, **fields}, fields):
        with contextlib.suppress(CallerFault):
            parse(msgspec.json.encode(body))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_the_callers_fault(body: bytes) -> None:
    with pytest.raises(CallerFault):
        parse(body)
