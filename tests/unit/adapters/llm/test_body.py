from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.adapters.llm import body, openai, smollm2
from lloom.adapters.llm.engine import catalogue
from lloom.core.errors import CallerFault, ConfigError
from lloom.core.lineup import Served
from lloom.core.offer import ModelOffer
from lloom.core.settings import Model


def served(max_output: int) -> Served:
    terms = ModelOffer(id="ours", context=4096, max_output=max_output, parallel=1, encoding="o200k_base", backend="b")
    return Served("theirs", terms)


MODEL = served(100)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def sent(rewritten: bytes) -> dict[str, Any]:
    return msgspec.json.decode(rewritten)


def chat(**fields: Any) -> bytes:
    return msgspec.json.encode({"messages": [{"role": "user", "content": "Hello"}], **fields})


@given(st.dictionaries(st.text(), JSON), JSON)
def test_what_is_not_named_stays_as_it_was(extra: dict[str, Any], messages: Any) -> None:
    touched = {"model", "stream", "stream_options", "messages", *body.LIMITS, *body.PRIVATE}
    extra = {name: value for name, value in extra.items() if name not in touched}
    rewritten = sent(openai.rewrite("chat", msgspec.json.encode({**extra, "messages": messages}), MODEL))
    expected = {"model": "theirs", "stream": True, "stream_options": {"include_usage": True}}
    assert rewritten == {**extra, "messages": messages, **expected}


@given(st.binary())
def test_no_bytes_do_more_than_blame_the_caller(data: bytes) -> None:
    with suppress(CallerFault):
        assert sent(openai.rewrite("chat", data, MODEL))["model"] == "theirs"


def test_a_deeply_nested_body_does_not_exhaust_the_stack() -> None:
    deep = b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with suppress(CallerFault):
        body.fields(deep)


def test_fields_that_act_on_the_operators_account_are_dropped() -> None:
    rewritten = sent(openai.rewrite("chat", chat(store=True, service_tier="priority", metadata={}, top_k=3), MODEL))
    assert set(rewritten) == {"messages", "model", "stream", "stream_options", "top_k"}


@pytest.mark.parametrize("name", ["models", "plugins", "n_predict", "n_cmpl"])
def test_a_stranger_chooses_no_other_model_no_tools_of_the_provider_and_no_limit_above_ours(name: str) -> None:
    rewritten = sent(openai.rewrite("chat", chat(max_tokens=5, **{name: ["dearest/model"]}), MODEL))
    assert name not in rewritten


@pytest.mark.parametrize("name", body.LIMITS)
@pytest.mark.parametrize(("wanted", "given_"), [(50, 50), (100, 100), (101, 100)])
def test_a_limit_is_lowered_and_never_raised(name: str, wanted: int, given_: int) -> None:
    assert sent(openai.rewrite("chat", chat(**{name: wanted}), MODEL))[name] == given_


@pytest.mark.parametrize("value", [0, -1, 1.5, "many", [], True])
def test_a_limit_that_is_no_whole_number_from_1_is_the_callers_fault(value: Any) -> None:
    with pytest.raises(CallerFault) as raised:
        openai.rewrite("chat", chat(max_tokens=value), MODEL)
    assert raised.value.param == "max_tokens"


def test_the_built_in_model_gets_known_fields_only_and_always_a_limit() -> None:
    hostile = chat(n_predict=-1, id_slot=1, grammar="root ::= x", tools=[], max_tokens=None, temperature=0)
    rewritten = sent(smollm2.rewrite("chat", hostile, MODEL))
    ours = {"model", "stream", "stream_options", "return_progress"}
    assert set(rewritten) == {"messages", "max_tokens", "temperature", *ours}
    assert rewritten["max_tokens"] == 100


def test_the_built_in_model_never_gives_more_than_its_context() -> None:
    rewritten = sent(smollm2.rewrite("chat", chat(max_completion_tokens=10**9), served(64)))
    assert rewritten["max_tokens"] == 64


@pytest.mark.parametrize("fields", [{"n": 2}, {"n": "x"}, {"max_tokens": -1}])
def test_what_the_built_in_model_cannot_bound_is_the_callers_fault(fields: dict[str, Any]) -> None:
    with pytest.raises(CallerFault):
        smollm2.rewrite("chat", chat(**fields), MODEL)


def completion(**fields: Any) -> bytes:
    return msgspec.json.encode({"prompt": "Once upon a time", **fields})


def test_a_completion_is_streamed_with_its_usage_and_no_best_is_chosen() -> None:
    rewritten = sent(openai.rewrite("completions", completion(best_of=20, max_tokens=0, top_k=3), MODEL))
    expected = {"model": "theirs", "stream": True, "stream_options": {"include_usage": True}}
    assert rewritten == {"prompt": "Once upon a time", "max_tokens": 0, "top_k": 3, **expected}


def test_embeddings_are_asked_for_as_base64_and_never_as_a_stream() -> None:
    asked = {"input": ["a"], "encoding_format": "float", "stream": True, "stream_options": {}, "user": "u"}
    rewritten = sent(openai.rewrite("embeddings", msgspec.json.encode(asked), MODEL))
    assert rewritten == {"input": ["a"], "encoding_format": "base64", "model": "theirs", "user": "u"}


def test_the_built_in_model_completes_with_known_fields_and_openais_usual_limit() -> None:
    hostile = completion(n_predict=-1, id_slot=0, suffix="", echo=False, messages=[], temperature=0)
    rewritten = sent(smollm2.rewrite("completions", hostile, MODEL))
    expected = {"model": "theirs", "stream": True, "stream_options": {"include_usage": True}, "max_tokens": 16}
    assert rewritten == {"prompt": "Once upon a time", "temperature": 0, "return_progress": True, **expected}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"echo": True}, "echo"),
        ({"suffix": "end"}, "suffix"),
        ({"logprobs": 0}, "logprobs"),
        ({"n": 2}, "n"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": {}}, "prompt"),
    ],
)
def test_what_the_built_in_model_would_leave_out_of_a_completion_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(CallerFault) as raised:
        smollm2.rewrite("completions", completion(**fields), MODEL)
    assert raised.value.param == param


def test_what_a_backend_cannot_do_is_not_offered() -> None:
    with pytest.raises(ConfigError, match="does not do embeddings"):
        catalogue("smollm2", {"m": Model(context=1, operations=("chat", "embeddings"))}, smollm2.OPERATIONS)
