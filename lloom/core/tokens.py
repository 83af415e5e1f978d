"""Token counts by tiktoken, the same on both sides of a receipt. It never downloads an encoding and never logs a text.

Importing this module is cheap: tiktoken and an encoding (0.1 to 0.6 s) are loaded at the first count. Counting is CPU
work, about 5 million characters a second for prose and a tenth of that for the worst input, and releases the GIL.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lloom.core.errors import ConfigError

if TYPE_CHECKING:
    from tiktoken import Encoding

ENCODINGS: Final = frozenset({"cl100k_base", "o200k_base", "o200k_harmony", "p50k_base"})
"""What can be counted offline: LiteLLM's wheel carries their tables."""

SLICE: Final = 100_000
"""Longer texts are counted in slices of this many characters (at most a few tokens off per cut): tiktoken's regex
overflows its stack, and panics, on a run of a million blanks."""

# Costs of the frame around a chat, in tokens. OpenAI cookbook, "How to count tokens with tiktoken", sections 6 and 7.
MESSAGE: Final = 3
NAME: Final = 1
REPLY: Final = 3
FUNCTION: Final = {"cl100k_base": 10, "p50k_base": 10}
FUNCTION_SINCE_4O: Final = 7
PROPERTIES: Final = 3
PROPERTY: Final = 3
ENUM: Final = -3
ENUM_ITEM: Final = 3
FUNCTIONS_END: Final = 12

# OpenAI, "Images and vision", gpt-4o: 85 tokens, and for high detail 170 for each tile of 512 × 512 of the image
# scaled into 2048 × 768, which has at most eight. The size stays unread, so every image counts as the largest.
IMAGE_LOW: Final = 85
IMAGE_HIGH: Final = 85 + 8 * 170

Message = Mapping[str, Any]


def count(text: str, encoding: str) -> int:
    """Tokens of `text`; special tokens in it count as the plain text they are. ValueError for an encoding not in ENCODINGS."""
    table = _load(encoding)
    if len(text) <= SLICE:
        return len(table.encode_ordinary(text))
    return sum(len(table.encode_ordinary(text[at : at + SLICE])) for at in range(0, len(text), SLICE))


def split(text: str, encoding: str) -> list[str]:
    """`text` (ASCII, at most SLICE characters) cut where its tokens meet, as a backend would stream it."""
    table = _load(encoding)
    return [table.decode([token]) for token in table.encode_ordinary(text)]


def count_messages(messages: Sequence[Message], tools: Sequence[Message], encoding: str) -> int:
    """Prompt tokens of a chat in OpenAI's wire form, by OpenAI's published rules; images by their upper bound.

    Where nothing is published, the count is what the text would cost: tool calls are their names and arguments in a
    message's frame, audio and files their JSON. ValueError for an encoding not in ENCODINGS.
    """
    return sum(_message(message, encoding) for message in messages) + REPLY + _tools(tools, encoding)


@cache
def _load(encoding: str) -> Encoding:
    if encoding not in ENCODINGS:
        raise ValueError(f"{encoding!r} is no encoding that can be counted offline: {', '.join(sorted(ENCODINGS))}")
    found = importlib.util.find_spec("litellm")
    if found is None or found.origin is None:
        raise ConfigError("LiteLLM is not installed; its wheel carries the token tables: run ./scripts/just once")
    tables = str(Path(found.origin).parent / "litellm_core_utils" / "tokenizers")
    # tiktoken takes its cache from nowhere else. The second name keeps LiteLLM from replacing the first.
    os.environ["TIKTOKEN_CACHE_DIR"] = os.environ["CUSTOM_TIKTOKEN_CACHE_DIR"] = tables

    import tiktoken

    return tiktoken.get_encoding(encoding)


def _message(message: Message, encoding: str) -> int:
    return MESSAGE + sum(
        NAME * (key == "name") + (_calls(value, encoding) if key == "tool_calls" else _content(value, encoding))
        for key, value in message.items()
    )


def _content(value: Any, encoding: str) -> int:
    if isinstance(value, str):
        return count(value, encoding)
    if isinstance(value, list):
        return sum(_part(part, encoding) for part in value)
    return 0 if value is None else count(_json(value), encoding)


def _part(part: Any, encoding: str) -> int:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("text", "refusal"):
        return _content(part.get(kind), encoding)
    if kind == "image_url":
        image = part.get("image_url")
        return IMAGE_LOW if isinstance(image, Mapping) and image.get("detail") == "low" else IMAGE_HIGH
    return count(_json(part), encoding)


def _calls(calls: Any, encoding: str) -> int:
    functions = [call.get("function") for call in _mappings(calls)]
    return sum(MESSAGE + sum(_content(value, encoding) for value in f.values()) for f in _mappings(functions))


def _tools(tools: Iterable[Any], encoding: str) -> int:
    functions = [f for f in (tool.get("function") for tool in _mappings(tools)) if isinstance(f, Mapping)]
    return sum(_function(f, encoding) for f in functions) + FUNCTIONS_END if functions else 0


def _function(function: Message, encoding: str) -> int:
    line = f"{function.get('name', '')}:{_sentence(function)}"
    start = FUNCTION.get(encoding, FUNCTION_SINCE_4O)
    return start + count(line, encoding) + _schema(function.get("parameters"), encoding)


def _schema(schema: Any, encoding: str) -> int:
    """The properties of an object, each by the published rule, those of nested objects and array items likewise."""
    if not isinstance(schema, Mapping):
        return 0
    properties = schema.get("properties")
    inner = _schema(schema.get("items"), encoding)
    if not isinstance(properties, Mapping) or not properties:
        return inner
    return inner + PROPERTIES + sum(_property(name, value, encoding) for name, value in properties.items())


def _property(name: str, value: Any, encoding: str) -> int:
    if not isinstance(value, Mapping):
        return PROPERTY + count(f"{name}:{_json(value)}", encoding)
    items = value.get("enum")
    choices = sum(ENUM_ITEM + _content(item, encoding) for item in items) + ENUM if isinstance(items, list) else 0
    line = f"{name}:{value.get('type', '')}:{_sentence(value)}"
    return PROPERTY + choices + count(line, encoding) + _schema(value, encoding)


def _sentence(described: Message) -> str:
    return str(described.get("description") or "").removesuffix(".")


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _mappings(values: Any) -> list[Message]:
    return [value for value in values if isinstance(value, Mapping)] if isinstance(values, Iterable) else []
