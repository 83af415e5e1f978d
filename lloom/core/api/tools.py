"""Tools, and which of them to use, as OpenAI defines them. It never looks into the schema of a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from lloom.core.api.reading import contradiction, missing

Identifier = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}\Z")]
"""OpenAI's names of functions and schemas."""


class Function(Struct):
    name: Identifier
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Text(Struct, tag_field="type", tag="text", forbid_unknown_fields=True):
    pass


class _Rules(Struct):
    definition: str
    syntax: Literal["lark", "regex"]


class _Grammar(Struct, tag_field="type", tag="grammar", forbid_unknown_fields=True):
    grammar: _Rules


class _Custom(Struct):
    name: Identifier
    description: str | None = None
    format: _Text | _Grammar | None = None


class _FunctionTool(Struct, tag_field="type", tag="function"):
    function: Function


class _CustomTool(Struct, tag_field="type", tag="custom"):
    custom: _Custom


Tool = _FunctionTool | _CustomTool


class _Named(Struct):
    name: str


class _ChosenFunction(Struct, tag_field="type", tag="function"):
    function: _Named


class _ChosenCustom(Struct, tag_field="type", tag="custom"):
    custom: _Named


class _Allowed(Struct):
    mode: Literal["auto", "required"]
    tools: list[dict[str, Any]]


class _AllowedTools(Struct, tag_field="type", tag="allowed_tools"):
    allowed_tools: _Allowed


ToolChoice = Literal["none", "auto", "required"] | _ChosenFunction | _ChosenCustom | _AllowedTools
FunctionChoice = Literal["none", "auto"] | _Named


def check_choice(choice: ToolChoice | None, tools: Sequence[Tool] | None) -> None:
    """CallerFault for a choice among tools that are not there."""
    if choice in (None, "none", "auto"):
        return
    if not tools:
        raise contradiction("tool_choice", "'tool_choice' is only allowed when 'tools' are specified.")
    match choice:
        case _ChosenFunction(function=chosen):
            names = {tool.function.name for tool in tools if isinstance(tool, _FunctionTool)}
        case _ChosenCustom(custom=chosen):
            names = {tool.custom.name for tool in tools if isinstance(tool, _CustomTool)}
        case _:
            return
    if chosen.name not in names:
        raise contradiction("tool_choice", f"there is no tool {chosen.name[:64]!r} among 'tools'.")


def check_function_choice(choice: FunctionChoice | None, functions: Sequence[Function] | None) -> None:
    """The same for the older `function_call` and `functions`."""
    if isinstance(choice, _Named) and choice.name not in {each.name for each in functions or ()}:
        if not functions:
            raise missing("functions")
        raise contradiction("function_call", f"there is no function {choice.name[:64]!r} among 'functions'.")
