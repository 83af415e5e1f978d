"""What the mock is told to call, line by line of a user's message: `call NAME {"argument": 1}`. It runs nothing.

So a client that runs tools, such as a coding agent, can be led through a task: each line is called in its turn, with exactly
these arguments, once the ones before it were answered; then the mock says what the last one gave.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

_LINE: Final = re.compile(r"^call ([\w.-]{1,128}) (\{.*\})\s*$", re.MULTILINE)

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """A function to call, and its arguments (a JSON object)."""

    name: str
    arguments: str


def step(messages: Sequence[Message], tools: Collection[str]) -> Call | str | None:
    """What comes next by the last script among `messages`: a call of one of `tools`, or what there is to say of the last result.

    None where there is no script (requests without tools never have one: agents ask for titles in the words of the user),
    or it was over before the last turn.
    """
    found = next((at for at in reversed(range(len(messages))) if _calls(messages[at])), None)
    if found is None or not tools:
        return None
    calls, since = _calls(messages[found]), messages[found + 1 :]
    results = [message for message in since if message.get("role") == "tool"]
    if len(results) < len(calls):
        call = calls[len(results)]
        return call if call.name in tools else f"There is no tool {call.name} among {', '.join(sorted(tools))}."
    return f"{calls[-1].name} gave: {_text(results[-1])}" if _fresh(since) else None


def _calls(message: Message) -> list[Call]:
    if message.get("role") != "user":
        return []
    return [Call(name, arguments) for name, arguments in _LINE.findall(_text(message)) if _is_object(arguments)]


def _is_object(arguments: str) -> bool:
    try:
        msgspec.json.decode(arguments, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _fresh(since: Sequence[Message]) -> bool:
    """Whether a result came after the model spoke last; the user may have spoken since (agents add reminders)."""
    last = max((at for at, message in enumerate(since) if message.get("role") == "assistant"), default=-1)
    return any(message.get("role") == "tool" for message in since[last + 1 :])


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))
