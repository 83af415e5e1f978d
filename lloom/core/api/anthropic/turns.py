"""The turns of a Messages request, block by block, as the messages of a chat. It never asks what a text says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from msgspec import Meta, Raw, Struct

from lloom.core.api.conversation import Conversation, Part, file_part, image_part, text_part
from lloom.core.api.reading import contradiction

_Name = Annotated[str, Meta(min_length=1)]


class _Base64(Struct, tag="base64"):
    media_type: str
    data: str


class _Url(Struct, tag="url"):
    url: str


class _Plain(Struct, tag="text"):
    data: str


class Text(Struct, tag="text"):
    """A piece of text."""

    text: str


class _Image(Struct, tag="image"):
    source: _Base64 | _Url


class _Document(Struct, tag="document"):
    source: _Plain | _Base64
    title: str | None = None


class _Reference(Struct, tag="tool_reference"):
    tool_name: str


class _Result(Struct, tag="tool_result"):
    tool_use_id: _Name
    content: str | list[Text | _Image | _Document | _Reference] | None = None
    is_error: bool | None = None


class _Use(Struct, tag="tool_use"):
    id: _Name
    name: _Name
    input: Raw


class _Thinking(Struct, tag="thinking"):
    """Bound to the model that thought it: another one cannot use it."""


class _Redacted(Struct, tag="redacted_thinking"):
    """The same, unreadable."""


_Block = Text | _Image | _Document | _Result | _Use | _Thinking | _Redacted


class Message(Struct):
    """One turn."""

    role: Literal["user", "assistant", "system"]
    content: str | list[_Block]


def conversation(system: str | Sequence[Text] | None, messages: Sequence[Message]) -> Conversation:
    """The chat that they amount to; CallerFault names the block that is out of place."""
    talk = Conversation()
    if system:
        talk.system(system if isinstance(system, str) else "\n".join(each.text for each in system))
    for number, message in enumerate(messages):
        content = message.content
        blocks: list[_Block] = [Text(content)] if isinstance(content, str) else content
        _SAY[message.role](talk, blocks, f"messages[{number}].content")
    return talk


def _user(talk: Conversation, blocks: list[_Block], where: str) -> None:
    parts: list[Part] = []
    for number, block in enumerate(blocks):
        match block:
            case _Result():
                if parts:
                    talk.user(parts)
                    parts = []
                talk.result(block.tool_use_id, _result(block))
            case Text() | _Image() | _Document():
                parts.append(_part(block))
            case _:
                raise contradiction(f"{where}[{number}]", "this block is the assistant's.")
    if parts:
        talk.user(parts)


def _assistant(talk: Conversation, blocks: list[_Block], where: str) -> None:
    said = [block.text for block in blocks if isinstance(block, Text)]
    calls = [block for block in blocks if isinstance(block, _Use)]
    if said or not calls:
        talk.assistant("".join(said))
    for number, block in enumerate(blocks):
        match block:
            case _Use():
                if not bytes(block.input).startswith(b"{"):
                    raise contradiction(f"{where}[{number}].input", "it is not an object.")
                talk.call(block.id, block.name, bytes(block.input).decode())
            case _Result() | _Image() | _Document():
                raise contradiction(f"{where}[{number}]", "this block is the user's.")


def _system(talk: Conversation, blocks: list[_Block], where: str) -> None:
    texts = [block.text for block in blocks if isinstance(block, Text)]
    if len(texts) < len(blocks):
        raise contradiction(where, "instructions are text.")
    talk.system("\n".join(texts))


_SAY: Final = {"user": _user, "assistant": _assistant, "system": _system}


def _result(result: _Result) -> list[Part]:
    content = result.content or ""
    parts = [text_part(content)] if isinstance(content, str) else [_part(block) for block in content]
    return [text_part("Error:"), *parts] if result.is_error else parts


def _part(block: Text | _Image | _Document | _Reference) -> Part:
    match block:
        case Text():
            return text_part(block.text)
        case _Reference():
            return text_part(f"The tool {block.tool_name}.")
        case _Image():
            return image_part(_url(block.source))
        case _Document(source=_Plain() as plain):
            return text_part(f"{block.title}\n{plain.data}" if block.title else plain.data)
        case _Document(source=_Base64() as whole):
            return file_part(block.title or "document.pdf", _url(whole))
    raise AssertionError("no other block is a part")


def _url(source: _Base64 | _Url | _Plain) -> str:
    match source:
        case _Base64():
            return f"data:{source.media_type};base64,{source.data}"
        case _Url():
            return source.url
        case _Plain():
            raise AssertionError("plain text has no address")
