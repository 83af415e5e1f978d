"""Token counts by tiktoken, the same on both sides of a receipt. It never downloads an encoding and never logs a text.

Importing this module is cheap: tiktoken and an encoding (0.1 to 0.6 s) are loaded at the first count. Counting is CPU
work, about 5 million characters a second for prose and a tenth of that for the worst input, and releases the GIL.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lloom.core import media
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

TOOL_CHARACTERS: Final = 10
"""Of the JSON of tools, that are a token at least: the published rule leaves out parts of it (defaults, remarks, what is nested)
that templates show to a model all the same, and whoever asks puts there what he likes. Prose has four or five for a token.
"""

# OpenAI, "Images and vision", gpt-4o: 85 tokens, and for high detail 170 for each tile of 512 × 512 of the image, scaled
# down into 2048 × 2048 and then until its shorter side has 768. An image of unknown size counts as the largest: eight tiles.
IMAGE: Final = 85
TILE: Final = 170
TILE_SIDE: Final = 512
LONGER_SIDE: Final = 2048
SHORTER_SIDE: Final = 768
MOST_TILES: Final = 8

# OpenAI, "Managing costs" of the Realtime API: a token for 100 ms of a user's speech.
SOUND_SECOND: Final = 10

DATA_BYTES: Final = 4
"""Characters of a file or a film that count as a token, for want of a rule: to split up megabytes of base64 takes seconds."""

SHORT_DATA: Final = 4096
"""Characters up to which also those are counted as the text they are."""

_CALLS: Final = frozenset({"tool_calls", "function_call"})

Message = Mapping[str, Any]


_loaded: Final[set[str]] = set()


def loaded(encoding: str) -> bool:
    """Whether its table is there, so that a count takes no longer than it must."""
    return encoding in _loaded


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
    """Prompt tokens of a chat in OpenAI's wire form, by OpenAI's published rules.

    What cannot be looked into counts as its upper bound: images elsewhere, the time of an MP3. Where nothing is published,
    the count is what the text would cost: tool calls are their names and arguments in a message's frame, files their
    characters. ValueError for an encoding not in ENCODINGS.
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

    table = tiktoken.get_encoding(encoding)
    _loaded.add(encoding)
    return table


def _message(message: Message, encoding: str) -> int:
    found = MESSAGE
    for key, value in message.items():
        found += _called(key, value, encoding) if key in _CALLS else _content(value, encoding)
    return found + NAME if "name" in message else found


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
    held = part.get(kind) if isinstance(kind, str) else None
    match kind, held:
        case "image_url", _:
            return image(held if isinstance(held, Mapping) else {})
        case "input_audio", {"data": str(data)}:
            return math.ceil(SOUND_SECOND * media.seconds(data))
        case ("file", {"file_data": str(data)}) | ("video_url", {"url": str(data)}) if len(data) > SHORT_DATA:
            return len(data) // DATA_BYTES
    return count(_json(part), encoding)


def image(asked: Message) -> int:
    """Tokens of a picture (`url`, `detail`) by OpenAI's rule for gpt-4o; of one that is not in its URL, the most."""
    if asked.get("detail") == "low":
        return IMAGE
    url = asked.get("url")
    size = media.picture(url) if isinstance(url, str) else None
    return IMAGE + TILE * (MOST_TILES if size is None else _tiles(*size))


def _tiles(width: int, height: int) -> int:
    scale = min(1.0, LONGER_SIDE / max(width, height))
    scale = min(scale, SHORTER_SIDE / min(width, height))
    across, down = (math.ceil(round(side * scale) / TILE_SIDE) or 1 for side in (width, height))
    return min(MOST_TILES, across * down)


def _called(key: str, value: Any, encoding: str) -> int:
    """What an assistant called: by `tool_calls`, or by the older `function_call`, which is one."""
    return _calls(value if key == "tool_calls" else [{"function": value}], encoding)


def _calls(calls: Any, encoding: str) -> int:
    called = [call.get("function") or call.get("custom") for call in _mappings(calls)]
    return sum(MESSAGE + sum(_content(value, encoding) for value in each.values()) for each in _mappings(called))


def _tools(tools: Sequence[Any], encoding: str) -> int:
    if not tools:
        return 0
    held = _mappings([tool.get("function") or tool.get("custom") for tool in _mappings(tools)])
    found = sum(_function(each, encoding) for each in held) + FUNCTIONS_END if held else 0
    return max(found, len(_json(tools)) // TOOL_CHARACTERS)


def _function(function: Message, encoding: str) -> int:
    line = f"{function.get('name', '')}:{_sentence(function)}"
    start = FUNCTION.get(encoding, FUNCTION_SINCE_4O)
    grammar = function.get("format")
    extra = count(_json(grammar), encoding) if isinstance(grammar, Mapping) else 0
    return start + count(line, encoding) + extra + _schema(function.get("parameters"), encoding)


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
