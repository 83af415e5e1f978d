"""LiteLLM's own file, as it stands in the wheel: what it says in its words is understood."""

from __future__ import annotations

import sys

import pytest

from lloom.adapters.llm.model_map import ModelMap


def test_a_model_is_found_by_its_providers_name_without_litellm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "litellm", raising=False)  # other tests may have imported it
    known = ModelMap.of("groq").get("openai/gpt-oss-120b")
    assert known is not None
    assert (known.context, known.max_output, known.chat) == (131072, 65536, True)
    assert {"tools", "json_schema", "reasoning"} <= set(known.features or ())
    assert "litellm" not in sys.modules


@pytest.mark.parametrize(
    ("provider", "name", "features"),
    [
        ("anthropic", "claude-haiku-4-5", {"tools", "vision", "prefill", "json_schema"}),
        ("gemini", "gemini-2.5-flash", {"tools", "vision", "audio"}),
        ("bedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0", {"tools", "vision"}),
        ("cohere_chat", "command-r7b-12-2024", {"tools"}),
        ("openai", "gpt-4.1-mini", {"tools", "json", "json_schema", "vision"}),
    ],
)
def test_its_flags_are_our_features(provider: str, name: str, features: set[str]) -> None:
    known = ModelMap.of(provider).get(name)
    assert known is not None
    assert features <= set(known.features or ())


def test_only_what_chats_and_is_not_retired_stands_for_a_pattern() -> None:
    found = ModelMap.of("openai")
    embedding, retired = found.get("text-embedding-3-small"), found.get("gpt-4-0613")
    assert embedding is not None
    assert embedding.chat is False
    assert retired is not None
    assert "text-embedding-3-small" not in found.chats("2024-01-01")
    assert "gpt-4-0613" in found.chats("2024-01-01")
    assert "gpt-4-0613" not in found.chats("2999-01-01")
    assert "gpt-4.1-mini" in found.chats("2999-01-01")


def test_an_unknown_provider_has_no_models() -> None:
    found = ModelMap.of("nobody")
    assert (found.get("gpt-4.1-mini"), found.chats("2024-01-01")) == (None, {})
