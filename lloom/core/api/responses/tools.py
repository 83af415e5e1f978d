"""The tools of a Responses request as functions of a chat, and what a called function stands for. It runs none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from lloom.core.api.reading import contradiction, convert, missing, unsupported

Fields = dict[str, Any]
_Name = Annotated[str, Meta(min_length=1)]

_INPUT: Final = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
"""A custom tool takes a text: as a function, that is its one argument."""


class _Format(Struct):
    type: Literal["text", "grammar"]
    syntax: str = ""
    definition: str = ""


class _Tool(Struct):
    type: str
    name: _Name | None = None
    description: str | None = None
    parameters: Fields | None = None
    strict: bool | None = None
    format: _Format | None = None
    tools: Annotated[list[Fields], Meta(max_length=1024)] | None = None


class _Choice(Struct):
    type: str
    mode: Literal["auto", "required"] = "auto"
    tools: Annotated[list[Fields], Meta(max_length=1024)] | None = None


class _Input(Struct):
    input: str


_input = msgspec.json.Decoder(_Input)


@dataclass(frozen=True, slots=True)
class Named:
    """What a function of the chat is to the caller. `namespace`: the group of tools that it stands in, if it does."""

    name: str
    namespace: str | None = None
    custom: bool = False

    @property
    def function(self) -> str:
        """Its name in the chat."""
        return f"{self.namespace}__{self.name}" if self.namespace else self.name

    def input(self, arguments: str) -> str:
        """The text that a custom tool is called with: all of the arguments, where a model does not keep to the form."""
        try:
            return _input.decode(arguments).input
        except (msgspec.DecodeError, RecursionError):
            return arguments


@dataclass(frozen=True, slots=True)
class Toolbox:
    """The tools of a request: the chat's functions by their names, and what those stand for."""

    functions: Mapping[str, Fields]
    named: Mapping[str, Named]

    def of(self, function: str) -> Named:
        """What a called function is to the caller. Models call what is not there, too."""
        return self.named.get(function) or Named(function)

    def chosen(self, choice: str | Fields | None) -> Fields:
        """The fields of a chat with these tools and `choice`; CallerFault if it cannot be made."""
        if choice is None or isinstance(choice, str):
            return _fields(list(self.functions.values()), choice)
        wanted = convert(choice, _Choice, "tool_choice")
        match wanted.type:
            case "function" | "custom":
                (function,) = self._functions([choice], "tool_choice")
                return _fields(list(self.functions.values()), {"type": "function", "function": {"name": function}})
            case "allowed_tools":
                allowed = self._functions(wanted.tools or (), "tool_choice.tools")
                return _fields([tool for name, tool in self.functions.items() if name in allowed], wanted.mode)
        raise unsupported("tool_choice", f"'{wanted.type}' is a built-in tool of OpenAI, and nobody runs it here.")

    def _functions(self, chosen: Iterable[Fields], where: str) -> set[str]:
        """What the chosen tools are called in the chat."""
        known: dict[tuple[Any, Any], str] = {
            (named.name, named.namespace): function for function, named in self.named.items()
        }
        try:
            return {known[tool.get("name"), tool.get("namespace")] for tool in chosen}
        except (KeyError, TypeError) as error:
            raise contradiction(where, "there is no such tool among 'tools'.") from error


def toolbox(tools: Iterable[Fields]) -> Toolbox:
    """The tools of a request; CallerFault names one that is wrong, or that OpenAI would run itself."""
    functions: dict[str, Fields] = {}
    named: dict[str, Named] = {}
    for where, tool, namespace in _flat(tools):
        if tool.type not in ("function", "custom"):
            reason = f"'{tool.type}' is a built-in tool of OpenAI, and nobody runs it here; leave it out."
            raise unsupported(f"{where}.type", reason)
        known = Named(_name(tool, where), namespace, tool.type == "custom")
        if known.function in functions:
            raise contradiction(f"{where}.name", "there is another tool of this name.")
        functions[known.function] = {"type": "function", "function": _function(tool, known)}
        named[known.function] = known
    return Toolbox(functions, named)


def _flat(tools: Iterable[Fields]) -> Iterator[tuple[str, _Tool, str | None]]:
    """All tools, those in namespaces with the name of theirs."""
    for number, fields in enumerate(tools):
        where = f"tools[{number}]"
        tool = convert(fields, _Tool, where)
        if tool.type != "namespace":
            yield where, tool, None
            continue
        for position, inner in enumerate(tool.tools or ()):
            within = f"{where}.tools[{position}]"
            yield within, convert(inner, _Tool, within), _name(tool, where)


def _name(tool: _Tool, where: str) -> str:
    if tool.name is None:
        raise missing(f"{where}.name")
    return tool.name


def _function(tool: _Tool, named: Named) -> Fields:
    described = [tool.description] if tool.description else []
    if tool.format is not None and tool.format.type == "grammar":
        described.append(f"The input must match this {tool.format.syntax} grammar:\n{tool.format.definition}")
    fields = {
        "name": named.function,
        "description": "\n\n".join(described) or None,
        "parameters": _INPUT if named.custom else tool.parameters,
        "strict": tool.strict,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _fields(tools: list[Fields], choice: str | Fields | None) -> Fields:
    if not tools:
        return {} if choice in (None, "auto", "none") else {"tool_choice": choice}
    return {"tools": tools} | ({} if choice is None else {"tool_choice": choice})
