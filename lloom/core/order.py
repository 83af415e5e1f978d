"""What one executor is asked to do, at most, signed by the client. It draws no random bytes: they are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from msgspec import Struct

from lloom.core.api.request import ApiRequest
from lloom.core.billing.quote import PRICE_UNIT, Quote, cost
from lloom.core.billing.request import Request, request_hash, sign_request
from lloom.core.eip712 import Domain
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity
from lloom.core.messages import ModelCall
from lloom.core.routing.candidate import Candidate

_MOST: Final = (1 << 32) - 1
"""Tokens that a request can name."""


class Nonce(Struct, frozen=True):
    """Fresh random bytes: 32 that name the request, 16 that salt its hashes."""

    request_id: bytes
    salt: bytes


class Order(Struct, frozen=True):
    """A signed request, ready to be sent, and what a receipt of it is checked against."""

    call: ModelCall
    request: Request
    digest: bytes
    quote: Quote
    domain: Domain
    """What the request is signed in, and its receipt has to be."""


class Paying(Struct, frozen=True):
    """How a request is paid: the chain and contract, the lane, the most input tokens, and what it has cost elsewhere already."""

    domain: Domain
    lane: int
    max_input: int
    spent: int


@dataclass(frozen=True, slots=True)
class Client:
    """Who signs, and in which domain where nobody pays."""

    identity: Identity
    domain: Domain

    def order(
        self, chat: ApiRequest, candidate: Candidate, nonce: Nonce, deadline: int, paying: Paying | None = None
    ) -> Order:
        """The order of `chat` at `candidate`, to be done before `deadline` (Unix seconds). `paying`: None where nobody pays.

        There the prompt's tokens are not counted: no prompt is longer than the context, and templates add to it.
        RetryElsewhere (402 `cost`) if earlier attempts have cost all that the request may.
        """
        terms = candidate.terms
        paying = paying or Paying(self.domain, 0, _MOST, 0)
        inputs = min(terms.context * chat.prompts, paying.max_input, _MOST)
        wanted = terms.max_output if chat.max_output is None else min(chat.max_output, terms.max_output)
        outputs = min(wanted * chat.choices, _MOST)
        max_cost = cost(candidate.quote, inputs, 0, outputs) - paying.spent
        if paying.spent:  # no executor takes an order that may cost more than it allows
            outputs = min(outputs, _affordable(candidate.quote, inputs, max_cost, chat.choices))
        request = Request(
            quote_hash=candidate.quote_hash,
            client=self.identity.address,
            lane=paying.lane,
            request_id=nonce.request_id,
            request_hash=request_hash(nonce.salt, chat.operation, terms.id, chat.body),
            max_input_tokens=inputs,
            max_output_tokens=outputs,
            max_cost=max_cost,
            deadline=deadline,
        )
        encoded, digest, signature = sign_request(request, self.identity, paying.domain)
        call = ModelCall(encoded, signature, nonce.salt, terms.id, chat.operation, paying.domain.chain_id)
        return Order(call, request, digest, candidate.quote, paying.domain)


def _affordable(quote: Quote, inputs: int, amount: int, choices: int) -> int:
    """Output tokens that `amount` pays for beside the prompt: one for each of the answers at least."""
    left = amount - cost(quote, inputs, 0, 0)
    outputs = left * PRICE_UNIT // quote.output_price if quote.output_price else _MOST
    if left <= 0 or outputs < choices:
        message = "What executors billed that failed to answer is already all that this request may cost."
        raise RetryElsewhere(message, status=402, code="cost")
    return outputs
