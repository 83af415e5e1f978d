"""An answer as a Response, at once or as events (https://platform.openai.com/docs/api-reference/responses-streaming)."""

from __future__ import annotations

import http
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from lloom.core.api.blocks import Begun, Block, Event, Grown, Over, Reading
from lloom.core.api.dialect import Failure, Served
from lloom.core.api.openai import told
from lloom.core.api.responses.response import Form, part
from lloom.core.messages import Done
from lloom.core.sse import END

_TEXTS: Final = {"text": "output_text", "refusal": "refusal", "thought": "reasoning_text"}
"""What an event's name calls the kinds of text."""


class ResponseStream:
    """A `Stream` of Responses events."""

    __slots__ = ("_begun", "_form", "_number", "_reading")

    def __init__(self, form: Form) -> None:
        self._form = form
        self._reading = Reading()
        self._begun = False
        self._number = 0

    def feed(self, data: bytes) -> bytes:
        """See `Stream`."""
        events = self._reading.feed(data)
        return self._start() + self._written(events) if events else b""

    def end(self, done: Done, served: Served) -> bytes:
        """See `Stream`."""
        events = self._reading.end()
        response = self._form.ended(self._reading, done)
        written = self._start() + self._written(events) + told(served, done)
        return written + self._event(f"response.{response['status']}", response=response)

    def failed(self, failure: Failure) -> bytes:
        """See `Stream`."""
        error = {"code": _code(failure), "message": failure.message}
        response = self._form.response(self._reading, "failed", output=self._form.output(self._reading), error=error)
        return self._start() + self._event("response.failed", response=response)

    def _start(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        new = self._form.response(self._reading, "in_progress")
        return self._event("response.created", response=new) + self._event("response.in_progress", response=new)

    def _written(self, events: Iterable[Event]) -> bytes:
        return b"".join(map(self._tell, events))

    def _tell(self, event: Event) -> bytes:
        match event:
            case Begun(block):
                return self._begin(block)
            case Grown(block, text):
                return self._grow(block, text)
            case Over(block):
                return self._over(block)

    def _begin(self, block: Block) -> bytes:
        item = self._form.item(block, "in_progress")
        added = self._event("response.output_item.added", output_index=block.number, item=item)
        if block.kind == "call":
            return added
        return added + self._of(block, "content_part.added", content_index=0, part=part(block, ""))

    def _grow(self, block: Block, text: str) -> bytes:
        if block.kind == "call":
            if self._form.custom(block):  # the text is known once the arguments are whole
                return b""
            return self._of(block, "function_call_arguments.delta", delta=text)
        more: dict[str, Any] = {"logprobs": []} if block.kind == "text" else {}
        return self._of(block, f"{_TEXTS[block.kind]}.delta", content_index=0, delta=text, **more)

    def _over(self, block: Block) -> bytes:
        item = self._form.item(block, self._form.status(block, self._reading))
        done = self._called(block, item) if block.kind == "call" else self._said(block)
        return done + self._event("response.output_item.done", output_index=block.number, item=item)

    def _called(self, block: Block, item: dict[str, Any]) -> bytes:
        if item["type"] == "function_call":
            named = {"name": item["name"], "arguments": item["arguments"]}
            return self._of(block, "function_call_arguments.done", **named)
        kind, text = "custom_tool_call_input", item["input"]
        return self._of(block, f"{kind}.delta", delta=text) + self._of(block, f"{kind}.done", input=text)

    def _said(self, block: Block) -> bytes:
        text = block.text
        more: dict[str, Any] = {"refusal": text} if block.kind == "refusal" else {"text": text}
        if block.kind == "text":
            more["logprobs"] = []
        done = self._of(block, f"{_TEXTS[block.kind]}.done", content_index=0, **more)
        return done + self._of(block, "content_part.done", content_index=0, part=part(block, text))

    def _of(self, block: Block, kind: str, **fields: Any) -> bytes:
        """An event within an item."""
        return self._event(f"response.{kind}", item_id=self._form.id(block), output_index=block.number, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        content = msgspec.json.encode({"type": kind, "sequence_number": self._number, **fields})
        self._number += 1
        return b"event: " + kind.encode() + b"\ndata: " + content + END


def _code(failure: Failure) -> str:
    """One of the codes that OpenAI names for responses that failed; `context_length_exceeded` is what makes agents compact."""
    if failure.status == http.HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_exceeded"
    if failure.code == "context_length_exceeded":
        return failure.code
    return "invalid_prompt" if failure.status < http.HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"


class ResponseWhole:
    """A `Whole` Response."""

    __slots__ = ("_form", "_reading")

    def __init__(self, form: Form) -> None:
        self._form = form
        self._reading = Reading()

    def feed(self, data: bytes) -> None:
        """See `Whole`."""
        self._reading.feed(data)

    def end(self, done: Done) -> bytes:
        """See `Whole`."""
        self._reading.end()
        return msgspec.json.encode(self._form.ended(self._reading, done))
