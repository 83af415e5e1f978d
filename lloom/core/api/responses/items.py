"""The input of a Responses request, item by item, as the messages of a chat. Nothing is stored, so nothing is looked up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from lloom.core.api.conversation import Conversation, Part, file_part, image_part, text_part
from lloom.core.api.reading import contradiction, convert, unsupported
from lloom.core.api.responses.tools import Fields, Named

_Id = Annotated[str, Meta(min_length=1)]


class _InputText(Struct, tag="input_text"):
    text: str


class _OutputText(Struct, tag="output_text"):
    text: str


class _Refusal(Struct, tag="refusal"):
    refusal: str


class _Image(Struct, tag="input_image"):
    image_url: str | None = None
    detail: Literal["auto", "low", "high", "original"] | None = None


class _File(Struct, tag="input_file"):
    filename: str | None = None
    file_data: str | None = None


_Part = _InputText | _OutputText | _Refusal | _Image | _File


class _Message(Struct):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[_Part]


class _Call(Struct):
    call_id: _Id
    name: _Id
    arguments: str
    namespace: str | None = None


class _CustomCall(Struct):
    call_id: _Id
    name: _Id
    input: str
    namespace: str | None = None


class _Output(Struct):
    call_id: _Id
    output: str | list[_Part]


def conversation(instructions: str | None, items: str | Sequence[Fields]) -> Conversation:
    """The chat that `items` amount to; CallerFault names the item that is wrong or cannot be had here."""
    talk = Conversation()
    if instructions:
        talk.system(instructions)
    if isinstance(items, str):
        talk.user([text_part(items)])
        return talk
    for number, item in enumerate(items):
        where, kind = f"input[{number}]", str(item.get("type") or "message")
        if kind in _KINDS:
            _KINDS[kind](talk, item, where)
        elif kind == "item_reference":
            raise unsupported(where, "nothing is stored here; send the item itself instead of a reference to it.")
        elif kind != "reasoning":  # that is bound to the model which thought it
            raise unsupported(f"{where}.type", f"nothing here understands '{kind}'.")
    return talk


def _message(talk: Conversation, item: Fields, where: str) -> None:
    message = convert(item, _Message, where)
    parts = _parts(message.content, f"{where}.content")
    if message.role == "user":
        talk.user(parts)
        return
    texts = [part["text"] for part in parts if part["type"] == "text"]
    if len(texts) < len(parts):
        raise contradiction(f"{where}.content", f"the {message.role} says nothing but text.")
    if message.role == "assistant":
        talk.assistant("".join(texts))
    else:
        talk.system("\n".join(texts))


def _call(talk: Conversation, item: Fields, where: str) -> None:
    call = convert(item, _Call, where)
    talk.call(call.call_id, Named(call.name, call.namespace).function, call.arguments)


def _custom_call(talk: Conversation, item: Fields, where: str) -> None:
    call = convert(item, _CustomCall, where)
    arguments = msgspec.json.encode({"input": call.input}).decode()
    talk.call(call.call_id, Named(call.name, call.namespace).function, arguments)


def _output(talk: Conversation, item: Fields, where: str) -> None:
    output = convert(item, _Output, where)
    talk.result(output.call_id, _parts(output.output, f"{where}.output"))


_KINDS: Final[dict[str, Callable[[Conversation, Fields, str], None]]] = {
    "message": _message,
    "function_call": _call,
    "custom_tool_call": _custom_call,
    "function_call_output": _output,
    "custom_tool_call_output": _output,
}


def _parts(content: str | list[_Part], where: str) -> list[Part]:
    if isinstance(content, str):
        return [text_part(content)]
    return [_part(part, f"{where}[{number}]") for number, part in enumerate(content)]


def _part(part: _Part, where: str) -> Part:
    match part:
        case _InputText() | _OutputText():
            return text_part(part.text)
        case _Refusal():
            return text_part(part.refusal)
        case _Image():
            if part.image_url is None:
                raise unsupported(where, "no files are stored here; send the picture as 'image_url'.")
            return image_part(part.image_url, "high" if part.detail == "original" else part.detail)
        case _File():
            if part.file_data is None:
                raise unsupported(where, "no files are stored here, and none are fetched; send it as 'file_data'.")
            return file_part(part.filename or "file", part.file_data)
