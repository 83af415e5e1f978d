"""How many tokens the prompt of a request has, counted alike by who pays and who is paid. It keeps none and logs none."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from lloom.core import tokens
from lloom.core.api.prompts import Prompts
from lloom.core.api.request import Operation

BYTES_PER_TOKEN: Final = 4
"""Stands in for a count: of a prompt in a form of its own, of the part of a very long answer that was not kept, of what comes."""

_NONE: Final = Raw(b"null")


class _Chat(Struct, frozen=True):
    messages: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] | None = None
    functions: list[dict[str, Any]] | None = None
    response_format: Raw = _NONE
    """Providers show its schema to the model."""
    documents: Raw = _NONE
    chat_template_kwargs: Raw = _NONE
    """What vLLM and llama.cpp hand to a model's template, which may show it."""

    @property
    def besides(self) -> str:
        """What is in the prompt, or may be, beside messages and tools."""
        given = (self.response_format, self.documents, self.chat_template_kwargs)
        return "".join([bytes(each).decode() for each in given if each != _NONE])


class _Completion(Struct, frozen=True):
    prompt: Prompts = ""
    suffix: str | None = None


class _Embeddings(Struct, frozen=True):
    input: Prompts = ""


_chat = msgspec.json.Decoder(_Chat)
_completion = msgspec.json.Decoder(_Completion)
_embeddings = msgspec.json.Decoder(_Embeddings)


def count(operation: Operation, body: bytes, encoding: str) -> int:
    """Tokens of the prompt in a request's body (JSON), whatever a backend makes of it. ValueError as `tokens.count`."""
    try:
        match operation:
            case "chat":
                return _of_chat(_chat.decode(body), encoding)
            case "completions":
                asked = _completion.decode(body)
                return _of_texts(asked.prompt, encoding) + tokens.count(asked.suffix or "", encoding)
            case "embeddings":
                return _of_texts(_embeddings.decode(body).input, encoding)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # a backend may take it all the same
        return len(body) // BYTES_PER_TOKEN


def plain(operation: Operation, body: bytes) -> bool:
    """Whether all backends make the same of it, but for tools, schemas and what is given to templates."""
    if operation != "chat":
        return True
    try:
        asked = _chat.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return not (asked.tools or asked.functions or asked.besides)


def _of_chat(asked: _Chat, encoding: str) -> int:
    older = [{"type": "function", "function": function} for function in asked.functions or ()]
    found = tokens.count_messages(asked.messages, [*(asked.tools or ()), *older], encoding)
    return found + tokens.count(asked.besides, encoding)


def _of_texts(prompts: Prompts, encoding: str) -> int:
    """Tokens given as such count as they are."""
    if isinstance(prompts, str):
        return tokens.count(prompts, encoding)
    return sum(_of_item(each, encoding) for each in prompts)


def _of_item(item: str | int | list[int], encoding: str) -> int:
    match item:
        case str():
            return tokens.count(item, encoding)
        case int():
            return 1
        case _:
            return len(item)
