"""The dialect of POST /v1/responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from lloom.core.api import affinity
from lloom.core.api.chat import parse
from lloom.core.api.openai import OpenAI
from lloom.core.api.reading import renamed
from lloom.core.api.request import ApiRequest
from lloom.core.api.responses import request as requests
from lloom.core.api.responses.answer import ResponseStream, ResponseWhole
from lloom.core.api.responses.response import Form
from lloom.core.api.responses.tools import toolbox

NAMES: Final = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
}
"""Fields of a chat completion by what they are called here."""


class Responses(OpenAI):
    """See `Dialect`."""

    def read(self, body: bytes, request_id: str) -> ResponseAsked:
        """See `Dialect`."""
        asked = requests.read(body)
        box = toolbox(asked.tools or ())
        chat = msgspec.json.encode(requests.chat(asked, box))
        with renamed(NAMES):
            request = parse(chat)
        if asked.prompt_cache_key:
            request = replace(request, affinity=affinity.named(asked.prompt_cache_key))
        return ResponseAsked(request, Form(request_id, asked, box))


@dataclass(frozen=True, slots=True)
class ResponseAsked:
    """A request for a Response."""

    request: ApiRequest
    form: Form

    def stream(self) -> ResponseStream:
        """See `Asked`."""
        return ResponseStream(self.form)

    def whole(self) -> ResponseWhole:
        """See `Asked`."""
        return ResponseWhole(self.form)


def prompt(body: bytes) -> dict[str, Any]:
    """The chat completion that a request of /v1/responses/input_tokens is about: its model, messages and tools."""
    asked = requests.read(body)
    return requests.chat(asked, toolbox(asked.tools or ()))
