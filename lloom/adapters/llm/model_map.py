"""LiteLLM's map of models, read from its wheel without importing LiteLLM (4 to 8 s, 200 MB). It never fetches a newer one."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Raw, Struct

from lloom.core.lineup import LARGEST, Known
from lloom.core.settings import Feature

FILE: Final = "model_prices_and_context_window_backup.json"
FAMILIES: Final = {"bedrock": ("bedrock", "bedrock_converse"), "cohere_chat": ("cohere_chat", "cohere")}
"""Providers whose models stand under several names."""


class _Entry(Struct, frozen=True):
    """Limits are tokens; `mode` is what the model is for."""

    litellm_provider: str = ""
    mode: str = ""
    deprecation_date: str = ""
    max_input_tokens: float | None = None
    max_output_tokens: float | None = None
    max_tokens: float | None = None
    supports_function_calling: bool = False
    supports_vision: bool = False
    supports_response_schema: bool = False
    supports_assistant_prefill: bool = False
    supports_audio_input: bool = False
    supports_reasoning: bool = False


_FLAGS: Final[dict[Feature, str]] = {
    "tools": "supports_function_calling",
    "vision": "supports_vision",
    "audio": "supports_audio_input",
    "json": "supports_response_schema",
    "json_schema": "supports_response_schema",
    "reasoning": "supports_reasoning",
    "prefill": "supports_assistant_prefill",
}


class ModelMap:
    """What the map knows of one provider's models, by the provider's own names."""

    def __init__(self, entries: dict[str, _Entry]) -> None:
        self._entries = entries

    @classmethod
    def of(cls, provider: str) -> ModelMap:
        """Reads it: 30 ms, so call it in a thread. Empty if LiteLLM is not installed, or does not know the provider."""
        found = importlib.util.find_spec("litellm")
        if found is None or found.origin is None:
            return cls({})
        return cls(dict(_entries((Path(found.origin).parent / FILE).read_bytes(), provider)))

    def get(self, name: str) -> Known | None:
        """What is known of a model, None if nothing is."""
        entry = self._entries.get(name)
        return None if entry is None else _known(entry)

    def chats(self, today: str) -> dict[str, Known]:
        """The models that take chats and are not retired by `today` (ISO 8601)."""
        return {
            name: known
            for name, entry in self._entries.items()
            if (known := _known(entry)).chat and known.context and not "" < entry.deprecation_date <= today
        }


def _entries(data: bytes, provider: str) -> Iterator[tuple[str, _Entry]]:
    family = FAMILIES.get(provider, (provider,))
    prefixes = "|".join(map(re.escape, family))
    for key, raw in msgspec.json.decode(data, type=dict[str, Raw]).items():
        try:
            entry = msgspec.json.decode(raw, type=_Entry)
        except msgspec.ValidationError:  # its first entry explains the others
            continue
        if entry.litellm_provider in family or entry.litellm_provider.startswith(f"{provider}-"):
            yield re.sub(rf"^(?:{prefixes})/", "", key), entry


def _known(entry: _Entry) -> Known:
    return Known(
        context=_tokens(entry.max_input_tokens or entry.max_tokens),
        max_output=_tokens(entry.max_output_tokens),
        features=tuple(feature for feature, flag in _FLAGS.items() if getattr(entry, flag)),
        chat=entry.mode == "chat",
    )


def _tokens(limit: float | None) -> int | None:
    return int(limit) if limit and 1 <= limit <= LARGEST else None
