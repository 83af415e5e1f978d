"""How many tokens a prompt has, counted by the executor itself. It never keeps one."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from msgspec import Struct

from lloom.core import tokens

BYTES_PER_TOKEN: Final = 4
"""Used only for what cannot be counted: a prompt in a form of its own, the part of a very long answer that was not kept."""
SHORT: Final = 4096
"""Bytes of a body that are counted at once, within a few milliseconds at worst; longer ones in a thread."""


class _Prompt(Struct, frozen=True):
    """What of a body is counted."""

    messages: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] | None = None


_prompt = msgspec.json.Decoder(_Prompt)


def count(body: bytes, encoding: str) -> int:
    """Tokens of the prompt in a request's body, whatever the backend makes of it."""
    try:
        prompt = _prompt.decode(body)
        return tokens.count_messages(prompt.messages, prompt.tools or [], encoding)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the backend may take it all the same
        return len(body) // BYTES_PER_TOKEN


async def counted(body: bytes, encoding: str) -> int:
    """The same, without holding up the loop."""
    return count(body, encoding) if len(body) <= SHORT else await asyncio.to_thread(count, body, encoding)
