"""The dialect of POST /v1/messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from lloom.core.api.anthropic import request as requests
from lloom.core.api.anthropic.answer import Form, MessageStream, MessageWhole
from lloom.core.api.anthropic.failure import error
from lloom.core.api.chat import parse
from lloom.core.api.dialect import Failure
from lloom.core.api.reading import renamed
from lloom.core.api.request import ApiRequest

NAMES: Final = {
    "stop": "stop_sequences",
    "max_completion_tokens": "max_tokens",
    "response_format": "output_config.format",
}
"""Fields of a chat completion by what they are called here."""


class Messages:
    """See `Dialect`."""

    id_header: Final = b"request-id"
    waiting: Final = b'event: ping\ndata: {"type":"ping"}\n\n'

    def read(self, body: bytes, request_id: str) -> MessageAsked:
        """See `Dialect`."""
        asked = requests.read(body)
        chat = msgspec.json.encode(requests.chat(asked))
        with renamed(NAMES):
            request = parse(chat)
        more = {"prefill"} if requests.prefilled(asked) else set()
        request = replace(request, features=request.features | more, at_most=True)
        return MessageAsked(request, Form(request_id, asked.model, asked.stop_sequences or ()))

    def refusal(self, failure: Failure, request_id: str) -> bytes:
        """See `Dialect`."""
        return msgspec.json.encode(error(failure, request_id))


@dataclass(frozen=True, slots=True)
class MessageAsked:
    """A request for a Message."""

    request: ApiRequest
    form: Form

    def stream(self) -> MessageStream:
        """See `Asked`."""
        return MessageStream(self.form)

    def whole(self) -> MessageWhole:
        """See `Asked`."""
        return MessageWhole(self.form)


def prompt(body: bytes) -> dict[str, Any]:
    """The chat completion that a request of /v1/messages/count_tokens is about: its model, messages and tools."""
    return requests.prompt(requests.read_prompt(body))
