"""An answer as a Message, at once or as events (https://docs.anthropic.com/en/docs/build-with-claude/streaming).

What the input counts stands in the last events: nobody knows it at the beginning.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from lloom.core.api.anthropic.failure import error
from lloom.core.api.blocks import Begun, Block, Event, Grown, Reading
from lloom.core.api.dialect import Failure, Served
from lloom.core.api.openai import told
from lloom.core.api.usage import usage
from lloom.core.errors import PeerFault
from lloom.core.messages import Done
from lloom.core.sse import END

_encode = msgspec.json.encode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])

_REASONS: Final = {"length": "max_tokens", "content_filter": "refusal"}
"""Stop reasons by OpenAI's finish reasons; the others depend on what was answered."""


@dataclass(frozen=True, slots=True)
class Form:
    """What of a request its answer depends on."""

    request_id: str
    model: str
    stops: Collection[str]

    def message(self, reading: Reading, content: list[dict[str, Any]], ending: dict[str, Any]) -> dict[str, Any]:
        """A Message; `ending`: why it ends, and its usage."""
        return {
            "id": f"msg_{self.request_id}",
            "type": "message",
            "role": "assistant",
            "model": reading.model or self.model,
            "content": content,
            **ending,
        }

    def reason(self, reading: Reading) -> dict[str, Any]:
        """Why an answer that is over has ended."""
        by = reading.stopped_by if reading.stopped_by in self.stops else None
        if reading.finish in _REASONS:
            reason = _REASONS[reading.finish]
        elif reading.called:
            reason = "tool_use"
        elif any(block.kind == "refusal" for block in reading.blocks):
            reason = "refusal"
        else:
            reason = "stop_sequence" if by is not None else "end_turn"
        return {"stop_reason": reason, "stop_sequence": by}

    def id(self, call: Block) -> str:
        """A call's own id, or one for a call without."""
        return call.id or f"toolu_{self.request_id}_{call.number}"


class MessageStream:
    """A `Stream` of Messages events."""

    __slots__ = ("_begun", "_form", "_reading")

    def __init__(self, form: Form) -> None:
        self._form = form
        self._reading = Reading()
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        """See `Stream`."""
        return self._written(self._reading.feed(data))

    def end(self, done: Done, served: Served) -> bytes:
        """See `Stream`."""
        events = self._reading.end()
        last = {"type": "message_delta", "delta": self._form.reason(self._reading), "usage": _usage(done)}
        start = b"" if self._begun else self._start()
        return start + self._written(events) + _event(last) + told(served, done) + _event({"type": "message_stop"})

    def failed(self, failure: Failure) -> bytes:
        """See `Stream`."""
        return _event(error(failure, self._form.request_id))

    def _written(self, events: Iterable[Event]) -> bytes:
        written = b"".join(_event(self._tell(event)) for event in events)
        return self._start() + written if written and not self._begun else written

    def _start(self) -> bytes:
        self._begun = True
        unknown = {"stop_reason": None, "stop_sequence": None, "usage": _usage(Done())}
        return _event({"type": "message_start", "message": self._form.message(self._reading, [], unknown)})

    def _tell(self, event: Event) -> dict[str, Any]:
        number = event.block.number
        match event:
            case Begun(block):
                empty = _content(block, self._form.id(block), "", {})
                return {"type": "content_block_start", "index": number, "content_block": empty}
            case Grown(block, text):
                return {"type": "content_block_delta", "index": number, "delta": _delta(block, text)}
            case _:
                return {"type": "content_block_stop", "index": number}


class MessageWhole:
    """A `Whole` Message."""

    __slots__ = ("_form", "_reading")

    def __init__(self, form: Form) -> None:
        self._form = form
        self._reading = Reading()

    def feed(self, data: bytes) -> None:
        """See `Whole`."""
        self._reading.feed(data)

    def end(self, done: Done) -> bytes:
        """See `Whole`."""
        reading, form = self._reading, self._form
        reading.end()
        content = [
            _content(block, form.id(block), block.text, _input(block, cut=reading.finish == "length"))
            for block in reading.blocks
        ]
        return _encode(form.message(reading, content, {**form.reason(reading), "usage": _usage(done)}))


def _content(block: Block, id: str, text: str, arguments: dict[str, Any]) -> dict[str, Any]:
    match block.kind:
        case "thought":
            return {"type": "thinking", "thinking": text, "signature": ""}
        case "call":
            return {"type": "tool_use", "id": id, "name": block.name, "input": arguments}
        case _:
            return {"type": "text", "text": text, "citations": None}


def _delta(block: Block, text: str) -> dict[str, str]:
    match block.kind:
        case "thought":
            return {"type": "thinking_delta", "thinking": text}
        case "call":
            return {"type": "input_json_delta", "partial_json": text}
        case _:
            return {"type": "text_delta", "text": text}


def _input(block: Block, *, cut: bool) -> dict[str, Any]:
    """The arguments of a call; none if the answer was cut within them. PeerFault if they are no JSON object."""
    if block.kind != "call" or not block.pieces:
        return {}
    try:
        return _object.decode(block.text)
    except (msgspec.DecodeError, RecursionError) as fault:
        if cut:
            return {}
        raise PeerFault(
            "the model called a tool with arguments that are no JSON object", code="bad_arguments"
        ) from fault


def _usage(done: Done) -> dict[str, Any]:
    used = usage(done)
    return {
        "input_tokens": used.input - used.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": used.cached,
        "output_tokens": used.output,
    }


def _event(content: dict[str, Any]) -> bytes:
    return b"event: " + str(content["type"]).encode() + b"\ndata: " + _encode(content) + END
