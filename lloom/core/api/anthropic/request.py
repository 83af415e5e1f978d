"""A Messages request as callers write it, and the chat completion that it amounts to.

Thinking is not asked for or forbidden: only the backend knows what its model takes. Marks for caches are taken and not needed.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from lloom.core.api.anthropic.failure import NO_THREADS
from lloom.core.api.anthropic.turns import Message, Text, conversation
from lloom.core.api.reading import contradiction, decode, unsupported
from lloom.core.errors import CallerFault

_Limit = Annotated[int, Meta(ge=1, lt=1 << 32)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Name = Annotated[str, Meta(min_length=1)]

_REFUSED: Final = {
    "container": "nothing is run or kept between requests",
    "mcp_servers": "the network calls no servers; list their tools under 'tools' and call them yourself",
    "inference_geo": "nobody can promise where an executor stands",
}
"""Fields that would change what is answered, or where, and why they cannot be served."""

MAX_STOPS: Final = 4
"""What OpenAI's API takes, and so what every backend does."""


class _Tool(Struct):
    name: _Name
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class _Choice(Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Format(Struct):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class _Output(Struct):
    format: _Format | None = None


class Prompt(Struct, kw_only=True):
    """What a request says, whether it is to be answered or counted."""

    model: str
    messages: Annotated[list[Message], Meta(min_length=1, max_length=100_000)]
    system: str | list[Text] | None = None
    tools: Annotated[list[_Tool], Meta(max_length=1024)] | None = None
    tool_choice: _Choice | None = None
    output_config: _Output | None = None
    container: Any = None
    mcp_servers: Any = None
    inference_geo: Any = None
    thread: Any = None


class Request(Prompt, kw_only=True):
    """A request for an answer."""

    max_tokens: _Limit
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: _Share | None = None
    top_p: _Share | None = None
    top_k: Annotated[int, Meta(ge=0, lt=1 << 32)] | None = None


_request = msgspec.json.Decoder(Request)
_prompt = msgspec.json.Decoder(Prompt)


def read(body: bytes) -> Request:
    """The request in `body` (JSON); CallerFault names the field that is wrong."""
    asked = decode(body, _request)
    if len(asked.stop_sequences or ()) > MAX_STOPS:
        raise contradiction("stop_sequences", f"at most {MAX_STOPS} are supported.")
    return asked


def read_prompt(body: bytes) -> Prompt:
    """The request for a count in `body`; CallerFault likewise."""
    return decode(body, _prompt)


def chat(asked: Request) -> dict[str, Any]:
    """The body of the chat completion; CallerFault for what no chat completion can be asked."""
    content: dict[str, Any] = prompt(asked)
    content["max_completion_tokens"] = asked.max_tokens
    for name in ("stream", "temperature", "top_p", "top_k"):
        if (value := getattr(asked, name)) is not None:
            content[name] = value
    if asked.stop_sequences:
        content["stop"] = asked.stop_sequences
    if asked.output_config is not None and asked.output_config.format is not None:
        schema = {"name": "answer", "schema": asked.output_config.format.schema, "strict": True}
        content["response_format"] = {"type": "json_schema", "json_schema": schema}
    return content


def prompt(asked: Prompt) -> dict[str, Any]:
    """What of the body a model reads: model, messages and tools. CallerFault likewise."""
    for name, reason in _REFUSED.items():
        if getattr(asked, name):
            raise unsupported(name, f"{reason}.")
    if asked.thread is not None:
        text = "Unsupported parameter: 'thread': nothing is kept between requests; send the whole conversation."
        raise CallerFault(text, code=NO_THREADS, param="thread")
    talk = conversation(asked.system, asked.messages)
    content: dict[str, Any] = {"model": asked.model, "messages": talk.messages()}
    if asked.tools:
        content["tools"] = [_tool(tool, f"tools[{number}]") for number, tool in enumerate(asked.tools)]
    if asked.tool_choice is not None:
        content |= _choice(asked.tool_choice, tools=bool(asked.tools))
    return content


def prefilled(asked: Request) -> bool:
    """Whether the answer is to go on where the last message ends."""
    return asked.messages[-1].role == "assistant"


def _tool(tool: _Tool, where: str) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise unsupported(f"{where}.type", f"{tool.type} ('{tool.name}') is Anthropic's own; describe a custom tool.")
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.input_schema is not None:
        function["parameters"] = tool.input_schema
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice(choice: _Choice, *, tools: bool) -> dict[str, Any]:
    if not tools:
        if choice.type in ("any", "tool"):
            raise contradiction("tool_choice", "there are no 'tools' to choose from.")
        return {}
    if choice.type == "tool" and not choice.name:
        raise contradiction("tool_choice.name", "the tool must be named.")
    chosen: dict[str, Any] = {
        "tool_choice": {"any": "required", "tool": {"type": "function", "function": {"name": choice.name}}}.get(
            choice.type, choice.type
        )
    }
    if choice.disable_parallel_tool_use:
        chosen["parallel_tool_calls"] = False
    return chosen
