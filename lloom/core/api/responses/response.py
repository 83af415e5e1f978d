"""The Response object and the items of its output, at any time of an answer. Keys that clients expect are there as null."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from lloom.core.api.blocks import Block, Reading
from lloom.core.api.responses.request import Request, Text
from lloom.core.api.responses.tools import Fields, Toolbox
from lloom.core.api.usage import usage
from lloom.core.messages import Done

Status = Literal["in_progress", "completed", "incomplete"]

_PREFIXES: Final = {"text": "msg", "refusal": "msg", "thought": "rs", "call": "fc"}
_CUT: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why an answer is incomplete, by OpenAI's finish reasons."""


@dataclass(frozen=True, slots=True)
class Form:
    """What of a request its answer depends on."""

    request_id: str
    asked: Request
    box: Toolbox

    def response(self, reading: Reading, status: str, **fields: Any) -> Fields:
        """The whole object; `fields` are what differs from the beginning."""
        asked = self.asked
        return {
            "id": f"resp_{self.request_id}",
            "object": "response",
            "created_at": reading.created or 0,
            "status": status,
            "background": False,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "max_tool_calls": asked.max_tool_calls,
            "model": reading.model or asked.model,
            "output": [],
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "prompt_cache_key": asked.prompt_cache_key,
            "reasoning": asked.reasoning or {"effort": None, "summary": None},
            "safety_identifier": asked.safety_identifier,
            "service_tier": "default",
            "store": False,
            "temperature": asked.temperature,
            "text": _text(asked.text),
            "tool_choice": asked.tool_choice or "auto",
            "tools": [_echo(tool) for tool in asked.tools or ()],
            "top_logprobs": 0,
            "top_p": asked.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": asked.user,
            "metadata": asked.metadata or {},
            **fields,
        }

    def ended(self, reading: Reading, done: Done) -> Fields:
        """The object of an answer that came to its end."""
        why = _CUT.get(reading.finish or "")
        return self.response(
            reading,
            "incomplete" if why else "completed",
            output=self.output(reading),
            usage=_usage(done),
            incomplete_details={"reason": why} if why else None,
        )

    def output(self, reading: Reading) -> list[Fields]:
        """All items of an answer to which nothing more comes."""
        return [self.item(block, self.status(block, reading)) for block in reading.blocks]

    def status(self, block: Block, reading: Reading) -> Status:
        """How a block ended: the last one may have been cut."""
        cut = reading.finish is None or reading.finish in _CUT
        return "incomplete" if cut and block is reading.blocks[-1] else "completed"

    def id(self, block: Block) -> str:
        """A block's id as an item."""
        prefix = "ctc" if self.custom(block) else _PREFIXES[block.kind]
        return f"{prefix}_{self.request_id}_{block.number}"

    def custom(self, block: Block) -> bool:
        """Whether a block calls a custom tool."""
        return block.kind == "call" and self.box.of(block.name).custom

    def item(self, block: Block, status: Status) -> Fields:
        """A block as an item of the output; one that is in progress shows nothing yet."""
        text = "" if status == "in_progress" else block.text
        parts = [] if status == "in_progress" else [part(block, text)]
        item: Fields = {"id": self.id(block), "status": status}
        match block.kind:
            case "thought":
                return item | {"type": "reasoning", "summary": [], "content": parts}
            case "call":
                return item | self._call(block, text)
            case _:
                return item | {"type": "message", "role": "assistant", "content": parts}

    def _call(self, block: Block, text: str) -> Fields:
        tool = self.box.of(block.name)
        call: Fields = {"call_id": block.id or f"call_{self.request_id}_{block.number}", "name": tool.name}
        if tool.namespace is not None:
            call["namespace"] = tool.namespace
        if tool.custom:
            return {"type": "custom_tool_call", "input": tool.input(text) if text else "", **call}
        return {"type": "function_call", "arguments": text, **call}


def part(block: Block, text: str) -> Fields:
    """The one part that a message or a thought consists of."""
    match block.kind:
        case "thought":
            return {"type": "reasoning_text", "text": text}
        case "refusal":
            return {"type": "refusal", "refusal": text}
        case _:
            return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _text(text: Text | None) -> Fields:
    form: Fields = {"type": "text"}
    if text is not None and text.format is not None:
        form = {name: value for name, value in msgspec.to_builtins(text.format).items() if value is not None}
    return {"format": form} | ({"verbosity": text.verbosity} if text is not None and text.verbosity else {})


def _echo(tool: Fields) -> Fields:
    nulls = {"description": None, "parameters": None, "strict": None} if tool["type"] == "function" else {}
    return {**nulls, **tool}


def _usage(done: Done) -> Fields:
    used = usage(done)
    return {
        "input_tokens": used.input,
        "input_tokens_details": {"cached_tokens": used.cached, "cache_write_tokens": 0},
        "output_tokens": used.output,
        "output_tokens_details": {"reasoning_tokens": used.reasoning},
        "total_tokens": used.input + used.output,
    }
