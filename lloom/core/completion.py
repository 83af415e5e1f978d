"""A chat answer in its plain form, folded from its chunks. It never waits and never trusts the executor's JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from lloom.core.api.calls import MAX_CALLS, CalledFunction, CallPiece
from lloom.core.api.chunks import Choice, Chunk, Reader, merged, usage
from lloom.core.errors import PeerFault
from lloom.core.messages import Done

_encode = msgspec.json.Encoder().encode


class Fold:
    """Joins the chunks of a stream into one `chat.completion`, however the bytes are cut. Errors as in `chunks.read`."""

    __slots__ = ("_choices", "_head", "_reader")

    def __init__(self) -> None:
        self._reader = Reader()
        self._choices: dict[int, _Sum] = {}
        self._head = Chunk()

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        for chunk in self._reader.feed(data):
            self._add(chunk)

    def completion(self, done: Done) -> bytes:
        """The whole as JSON, with usage from `done`. PeerFault if the answer has no end: it was cut."""
        if not self._choices or not all(choice.finish_reason for choice in self._choices.values()):
            raise PeerFault("the answer broke off before its end", code="bad_stream")
        head = self._head
        whole = {
            "id": head.id or "",
            "object": "chat.completion",
            "created": head.created or 0,
            "model": head.model or "",
            "choices": [self._choices[index].choice(index) for index in sorted(self._choices)],
            "usage": usage(done),
            "system_fingerprint": head.system_fingerprint,
        }
        if head.service_tier is not None:
            whole["service_tier"] = head.service_tier
        return _encode(whole)

    def _add(self, chunk: Chunk) -> None:
        head = self._head
        if not head.id:
            head.id, head.created, head.model = chunk.id, chunk.created, chunk.model
        if chunk.system_fingerprint:
            head.system_fingerprint = chunk.system_fingerprint
        if chunk.service_tier:
            head.service_tier = chunk.service_tier
        for choice in chunk.choices or ():
            found = self._choices.get(choice.index)
            if found is None:
                found = self._choices[choice.index] = _Sum()
            found.add(choice)


class _Sum:
    """One choice as it grows. Texts stay in pieces until the end: adding up strings takes quadratic time."""

    __slots__ = ("_last", "calls", "finish_reason", "function", "logprobs", "others", "role", "texts")

    def __init__(self) -> None:
        self.role = "assistant"
        self.texts: dict[str, list[str]] = {}
        self.calls: list[_CallSum] = []
        self._last: dict[int, _CallSum] = {}
        """The call that has a place now."""
        self.function: _CallSum | None = None
        self.logprobs: dict[str, list[Any] | None] | None = None
        self.others: dict[str, Any] = {}
        self.finish_reason: str | None = None

    def add(self, choice: Choice) -> None:
        if choice.finish_reason:
            self.finish_reason = choice.finish_reason
        if choice.delta:
            texts = self.texts
            for key, value in choice.delta.items():
                if key in texts and isinstance(value, str):
                    texts[key].append(value)
                elif value is not None:
                    self._merge(key, value)
        if choice.logprobs:
            self.logprobs = merged(self.logprobs, choice.logprobs)

    def choice(self, index: int) -> dict[str, Any]:
        texts = {key: "".join(pieces) for key, pieces in self.texts.items()}
        called = bool(self.calls or self.function)
        message = {"role": self.role, "content": None if called else "", "refusal": None, **texts, **self.others}
        if called and not message["content"]:
            message["content"] = None
        if self.calls:
            message["tool_calls"] = [call.call() for call in self.calls]
        if self.function is not None:
            message["function_call"] = self.function.function()
        return {"index": index, "message": message, "logprobs": self.logprobs, "finish_reason": self.finish_reason}

    def _merge(self, key: str, value: Any) -> None:
        if key == "tool_calls":
            for position, call in enumerate(_convert(value, list[CallPiece])):
                self._call(call, call.place(position))
        elif key == "function_call":
            self.function = self.function or _CallSum()
            self.function.add(CallPiece(function=_convert(value, CalledFunction)))
        elif key == "role":
            self.role = _convert(value, str)
        elif isinstance(value, str):
            self.texts.setdefault(key, []).append(value)
        elif isinstance(value, list) and isinstance(self.others.get(key), list):
            self.others[key] += value
        else:
            self.others[key] = value

    def _call(self, piece: CallPiece, place: int) -> None:
        call = self._last.get(place)
        if call is None or piece.begins_another(call.id):
            if len(self.calls) >= MAX_CALLS:
                raise PeerFault("an answer of too many tool calls", code="bad_stream")
            call = self._last[place] = _CallSum()
            self.calls.append(call)
        call.add(piece)


class _CallSum:
    """One tool call as it grows."""

    __slots__ = ("arguments", "id", "name", "type")

    def __init__(self) -> None:
        self.id = ""
        self.type = "function"
        self.name = ""
        self.arguments: list[str] = []

    def add(self, call: CallPiece) -> None:
        self.id = call.id or self.id
        self.type = call.type or self.type
        function = call.function
        if function is None:
            return
        if function.name and function.name != self.name:  # some backends repeat the name in every chunk
            self.name += function.name
        self.arguments.append(function.arguments or "")

    def call(self) -> dict[str, Any]:
        return {"id": self.id, "type": self.type, "function": self.function()}

    def function(self) -> dict[str, str]:
        return {"name": self.name, "arguments": "".join(self.arguments)}


def _convert(value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise PeerFault(f"the executor sent a chunk with a wrong field: {error}", code="bad_stream") from error
