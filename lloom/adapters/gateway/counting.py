"""What a prompt will be counted as, in either dialect that can ask. Nobody else is asked, and no executor sees the prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from lloom.adapters.gateway.exchange import Exchange
from lloom.core import tokens
from lloom.core.api import anthropic, responses
from lloom.core.api.reading import model_id, unknown_model
from lloom.core.offer import ModelOffer
from lloom.core.payment.counting import known
from lloom.core.settings import GatewaySettings

Offers = Callable[[str], Awaitable[list[ModelOffer]]]
"""The offers of a model, or of what it stands for here, by its canonical id."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a dialect asks for a count: the chat completion that a body amounts to, and what the answer has beside the count."""

    prompt: Callable[[bytes], Mapping[str, Any]]
    beside: Mapping[str, str]


FORMS: Final = {
    "/v1/messages/count_tokens": Form(anthropic.prompt, {}),
    "/v1/responses/input_tokens": Form(responses.prompt, {"object": "response.input_tokens"}),
}
"""By the path of the endpoint."""


class Counting:
    """Counts by the encoding that executors of the model count with."""

    def __init__(self, form: Form, offers: Offers, settings: GatewaySettings) -> None:
        self._form = form
        self._offers = offers
        self._settings = settings

    async def __call__(self, exchange: Exchange) -> None:
        """Answers one request; errors pass through as they are."""
        body = await exchange.body(self._settings.max_body, self._settings.body_seconds)
        asked = self._form.prompt(body)
        model = model_id(asked["model"])
        offers = await self._offers(model)
        if not offers:
            raise unknown_model(model)
        count = await asyncio.to_thread(_count, asked, known(offers[0].encoding))
        await exchange.reply(200, msgspec.json.encode({**self._form.beside, "input_tokens": count}), [])


def _count(asked: Mapping[str, Any], encoding: str) -> int:
    return tokens.count_messages(asked["messages"], asked.get("tools", []), encoding)
