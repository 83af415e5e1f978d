"""The messages of a chat as OpenAI defines them, and the order they have to keep. It reads no other field of a request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from lloom.core.api.reading import contradiction, missing
from lloom.core.errors import CallerFault

_Name = Annotated[str, Meta(max_length=64)]
_Url = Annotated[str, Meta(pattern=r"^(?i:https?://[^\s]|data:[^\s])", description="an http, https or data URL")]


class _Breakpoint(Struct):
    mode: Literal["explicit"]


class _Part(Struct, tag_field="type"):
    prompt_cache_breakpoint: _Breakpoint | None = None


class TextPart(_Part, tag="text", kw_only=True):
    text: str


class OnlyText(Struct):
    """A text part where no other may stand: msgspec wants no tag where there is no choice."""

    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: _Breakpoint | None = None


class _RefusalPart(_Part, tag="refusal", kw_only=True):
    refusal: str


class _Image(Struct):
    url: _Url
    detail: Literal["auto", "low", "high"] | None = None


class _ImagePart(_Part, tag="image_url", kw_only=True):
    image_url: _Image


class _Video(Struct):
    url: _Url


class _VideoPart(_Part, tag="video_url", kw_only=True):
    """Not OpenAI's: vLLM and others take it."""

    video_url: _Video


class _Sound(Struct):
    data: str
    format: Literal["wav", "mp3"]


class _AudioPart(_Part, tag="input_audio", kw_only=True):
    input_audio: _Sound


class _File(Struct):
    filename: str | None = None
    file_data: str | None = None
    file_id: str | None = None


class _FilePart(_Part, tag="file", kw_only=True):
    file: _File


Texts = Annotated[list[OnlyText], Meta(min_length=1)]
_UserParts = Annotated[list[TextPart | _ImagePart | _VideoPart | _AudioPart | _FilePart], Meta(min_length=1)]
_FEATURES: Final[dict[type, str]] = {
    _ImagePart: "vision",
    _AudioPart: "audio",
    _VideoPart: "video",
    _FilePart: "file",
}


class _Called(Struct):
    name: str
    arguments: str


class _CustomCalled(Struct):
    name: str
    input: str


class _FunctionCall(Struct, tag_field="type", tag="function"):
    id: str
    function: _Called


class _CustomCall(Struct, tag_field="type", tag="custom"):
    id: str
    custom: _CustomCalled


class _Spoken(Struct):
    id: str


class _Message(Struct, tag_field="role"):
    name: _Name | None = None


class _Developer(_Message, tag="developer", kw_only=True):
    content: str | Texts


class _System(_Message, tag="system", kw_only=True):
    content: str | Texts


class _User(_Message, tag="user", kw_only=True):
    content: str | _UserParts


class _Assistant(_Message, tag="assistant", kw_only=True):
    content: str | Annotated[list[TextPart | _RefusalPart], Meta(min_length=1)] | None = None
    refusal: str | None = None
    audio: _Spoken | None = None
    tool_calls: list[_FunctionCall | _CustomCall] | None = None
    function_call: _Called | None = None


class _Tool(_Message, tag="tool", kw_only=True):
    content: str | Annotated[list[TextPart | _ImagePart], Meta(min_length=1)]
    """OpenAI takes text only; pictures of tools are what Anthropic's clients send."""
    tool_call_id: str


class _Function(_Message, tag="function", kw_only=True):
    name: str
    content: str | UnsetType | None = UNSET


Message = _Developer | _System | _User | _Assistant | _Tool | _Function


def check(messages: Sequence[Message]) -> None:
    """CallerFault for messages that are right each by itself, and wrong together or empty.

    Every call of a tool is answered before the talk goes on, and nothing is answered that was not called.
    """
    open_calls: set[str] = set()
    for number, message in enumerate(messages):
        if isinstance(message, _Tool):
            if message.tool_call_id not in open_calls:
                text = "a message of role 'tool' must answer a tool call of the preceding 'assistant' message."
                raise contradiction(f"messages[{number}].{'tool_call_id' if open_calls else 'role'}", text)
            open_calls.discard(message.tool_call_id)
            continue
        if open_calls:
            raise _unanswered(open_calls, f"messages[{number}]")
        if not isinstance(message.content, str):
            _check_content(message, f"messages[{number}]")
        if isinstance(message, _Assistant):
            open_calls = {call.id for call in message.tool_calls or ()}
    if open_calls:
        raise _unanswered(open_calls, "messages")


def opening(messages: Sequence[Message]) -> Sequence[Message]:
    """All up to the first thing that a user says: what later turns of a conversation repeat."""
    first = next((number for number, message in enumerate(messages) if isinstance(message, _User)), 0)
    return messages[: first + 1]


def texts(messages: Sequence[Message]) -> Iterator[str]:
    """All text that a model will read."""
    for message in messages:
        content = message.content
        if isinstance(content, str):
            yield content
        elif isinstance(content, list):
            yield from (part.text for part in content if isinstance(part, TextPart | OnlyText))


def features(messages: Sequence[Message]) -> Iterator[str]:
    """What a model must understand beyond text (see `ApiRequest.features`)."""
    for message in messages:
        if isinstance(message.content, list):
            parts: list[Any] = message.content
            yield from (_FEATURES[type(part)] for part in parts if type(part) in _FEATURES)


def _unanswered(open_calls: set[str], where: str) -> CallerFault:
    ids = ", ".join(sorted(call[:64] for call in open_calls)[:8])
    text = f"an assistant message with 'tool_calls' must be followed by tool messages that answer each of them: {ids}."
    return contradiction(where, text)


def _check_content(message: Message, where: str) -> None:
    match message:
        case _Assistant(content=None, refusal=None, audio=None, function_call=None, tool_calls=None | []):
            raise missing(f"{where}.content")
        case _Function(content=content) if content is UNSET:
            raise missing(f"{where}.content")
        case _User(content=list(parts)):
            for number, part in enumerate(parts):
                if isinstance(part, _FilePart) and part.file.file_data is None and part.file.file_id is None:
                    raise missing(f"{where}.content[{number}].file.file_data")
