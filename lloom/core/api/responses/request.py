"""A Responses request as callers write it, and the chat completion that it amounts to. It keeps nothing for the next one."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from lloom.core.api.reading import decode, missing, unsupported
from lloom.core.api.responses.items import conversation
from lloom.core.api.responses.tools import Fields, Toolbox

_NOT_STORED: Final = "nothing is stored here; send the whole conversation as 'input'."
_NO_LOGPROBS: Final = "only /v1/chat/completions gives logprobs."
_REFUSED: Final = {
    "previous_response_id": _NOT_STORED,
    "conversation": _NOT_STORED,
    "prompt": "no prompts are stored here; send 'instructions' and 'input'.",
    "background": "nothing is stored here, so the answer could not be fetched later; stream it.",
    "moderation": "nobody moderates here.",
    "top_logprobs": _NO_LOGPROBS,
}
"""Fields that would change what is answered, and why they cannot be served. null, false and 0 are as good as nothing."""

_LOGPROBS: Final = "message.output_text.logprobs"


class Reasoning(Struct):
    """How much a model is to think. `summary` is taken and not given: thoughts come as they are, where a backend shows them."""

    effort: str | None = None
    summary: str | None = None


class _Format(Struct):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema: Fields | None = None
    description: str | None = None
    strict: bool | None = None


class Text(Struct):
    """The form of the text; `verbosity` is left to the backend."""

    format: _Format | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Request(Struct, kw_only=True):
    """A request for a Response."""

    model: str
    input: str | Annotated[list[Fields], Meta(max_length=100_000)] | None = None
    instructions: str | None = None
    stream: bool | None = None
    tools: Annotated[list[Fields], Meta(max_length=1024)] | None = None
    tool_choice: Literal["none", "auto", "required"] | Fields | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, lt=1 << 32)] | None = None
    max_tool_calls: int | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None
    previous_response_id: Any = None
    conversation: Any = None
    prompt: Any = None
    background: Any = None
    moderation: Any = None
    top_logprobs: Any = None


_decoder = msgspec.json.Decoder(Request)


def read(body: bytes) -> Request:
    """The request in `body` (JSON); CallerFault names the field that is wrong, or that cannot be served."""
    asked = decode(body, _decoder)
    for name, reason in _REFUSED.items():
        if getattr(asked, name):
            raise unsupported(name, reason)
    if _LOGPROBS in (asked.include or ()):
        raise unsupported("include", _NO_LOGPROBS)
    return asked


def chat(asked: Request, box: Toolbox) -> dict[str, Any]:
    """The body of the chat completion, with the tools in `box`; CallerFault for what no chat completion can be asked."""
    if asked.input is None:
        raise missing("input")
    talk = conversation(asked.instructions, asked.input)
    content: dict[str, Any] = {"model": asked.model, "messages": talk.messages(), **box.chosen(asked.tool_choice)}
    effort = asked.reasoning.effort if asked.reasoning is not None else None
    passed = {
        "stream": asked.stream,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "parallel_tool_calls": asked.parallel_tool_calls if "tools" in content else None,
        "max_completion_tokens": asked.max_output_tokens,
        "reasoning_effort": effort,
        "response_format": _form(asked.text.format)
        if asked.text is not None and asked.text.format is not None
        else None,
    }
    return content | {name: value for name, value in passed.items() if value is not None}


def _form(form: _Format) -> dict[str, Any] | None:
    if form.type == "text":
        return None
    if form.type == "json_object":
        return {"type": "json_object"}
    if form.name is None:
        raise missing("text.format.name")
    if form.schema is None:
        raise missing("text.format.schema")
    fields = {"name": form.name, "schema": form.schema, "description": form.description, "strict": form.strict}
    return {"type": "json_schema", "json_schema": {name: value for name, value in fields.items() if value is not None}}
