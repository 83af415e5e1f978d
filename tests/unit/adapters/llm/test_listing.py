"""The lists of models that servers give, word for word as far as it matters."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lloom.adapters.llm import listing
from lloom.core.errors import LloomError
from lloom.core.lineup import Known

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
FIELDS = st.sampled_from([field.name for field in msgspec.structs.fields(listing._Entry)])


def parsed(*entries: Any) -> dict[str, Known] | None:
    return listing._parse(msgspec.json.encode({"object": "list", "data": entries}))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"id": "gpt", "object": "model", "owned_by": "openai"}, Known()),
        ({"id": "v", "object": "model", "max_model_len": 32768, "permission": [{}]}, Known(context=32768)),
        ({"id": "l", "meta": {"n_ctx": 1024, "n_ctx_train": 8192, "n_params": 134515008}}, Known(context=1024)),
        ({"id": "l", "meta": {"n_ctx_train": 8192}}, Known(context=8192)),
        ({"id": "l", "meta": None}, Known()),
        (
            {"id": "groq", "context_window": 131072, "max_completion_tokens": 65536},
            Known(context=131072, max_output=65536),
        ),
        (
            {
                "id": "openrouter",
                "context_length": 163840,
                "architecture": {"input_modalities": ["text", "image"], "tokenizer": "x"},
                "top_provider": {"max_completion_tokens": 32768, "is_moderated": False},
                "supported_parameters": ["tools", "temperature", "response_format", "structured_outputs", "seed"],
            },
            Known(
                context=163840, max_output=32768, features=("tools", "json", "json_schema", "seed", "vision")
            ),
        ),
        (
            {
                "id": "mistral",
                "max_context_length": 262144,
                "capabilities": {"completion_chat": True, "function_calling": True, "vision": False},
            },
            Known(context=262144, features=("tools",), chat=True),
        ),
        ({"id": "e", "capabilities": {"completion_chat": False}}, Known(features=(), chat=False)),
        (
            {"id": "lm", "type": "vlm", "max_context_length": 131072, "loaded_context_length": 8192,
             "capabilities": ["tool_use"], "state": "loaded"},
            Known(context=8192, features=("tools", "vision"), chat=True),
        ),
        ({"id": "together", "type": "image", "context_length": 0}, Known(chat=False)),
        ({"id": "odd", "max_model_len": "many", "type": 7}, Known()),
    ],
)  # fmt: skip
def test_every_server_is_understood_in_its_own_words(entry: dict[str, Any], expected: Known) -> None:
    assert parsed(entry) == {entry["id"]: expected}


def test_a_bare_list_is_one_too_and_an_entry_without_a_name_is_none() -> None:
    assert listing._parse(b'[{"id":"a","type":"chat"},{"name":"b"},7]') == {"a": Known(chat=True)}


@pytest.mark.parametrize("body", [b"", b"{}", b"<html>", b'"x"', b"\xff", b"[" * 100_000])
def test_what_is_no_list_is_none(body: bytes) -> None:
    assert listing._parse(body) is None


@settings(deadline=None)
@given(st.dictionaries(FIELDS, JSON))
def test_no_entry_breaks_the_list(entry: dict[str, Any]) -> None:
    with suppress(LloomError):
        found = parsed({**entry, "id": "a"}, {"id": "b"})
        assert found is not None
        assert set(found) == {"a", "b"}
        assert all(known.context is None or 1 <= known.context <= 1 << 31 for known in found.values())


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["capabilities", "model_info", "parameters"]), JSON))
def test_no_word_of_ollama_breaks_anything(said: dict[str, Any]) -> None:
    listing._details(msgspec.json.encode(said))


def test_ollama_tells_of_one_model_at_a_time() -> None:
    said = {
        "capabilities": ["completion", "tools", "vision", "thinking"],
        "model_info": {"general.architecture": "llama", "llama.context_length": 131072, "llama.block_count": 16},
        "parameters": 'num_ctx                        8192\nstop                           "<|end|>"',
    }
    features = ("tools", "vision", "reasoning", "json", "json_schema", "seed")
    assert listing._details(msgspec.json.encode(said)) == Known(context=8192, features=features, chat=True)
    del said["parameters"]
    assert listing._details(msgspec.json.encode(said)) == Known(context=131072, features=features, chat=True)
    embedding = listing._details(b'{"capabilities":["embedding"]}')
    assert embedding is not None
    assert embedding.chat is False
