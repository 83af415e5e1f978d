"""What one executor is asked to do, at most, signed by the client. It draws no random bytes: they are given."""

from __future__ import annotations

from dataclasses import dataclass

from lloom.core.chat import ChatRequest
from lloom.core.eip712 import Domain
from lloom.core.identity import Identity
from lloom.core.messages import ChatCall
from lloom.core.receipt import Quote, Request, cost, request_digest, request_hash, sign_request
from lloom.core.selection import Candidate


@dataclass(frozen=True, slots=True)
class Nonce:
    """Fresh random bytes: 32 that name the request, 16 that salt its hashes."""

    request_id: bytes
    salt: bytes


@dataclass(frozen=True, slots=True)
class Order:
    """A signed request, ready to be sent, and what a receipt of it is checked against."""

    call: ChatCall
    request: Request
    digest: bytes
    quote: Quote
    domain: Domain
    """What the request is signed in, and its receipt has to be."""


@dataclass(frozen=True, slots=True)
class Paying:
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
        self, chat: ChatRequest, candidate: Candidate, nonce: Nonce, deadline: int, paying: Paying | None = None
    ) -> Order:
        """The order of `chat` at `candidate`, to be done before `deadline` (Unix seconds). `paying`: None where nobody pays.

        There the prompt's tokens are not counted: no prompt is longer than the context, and templates add to it.
        """
        terms = candidate.terms
        paying = paying or Paying(self.domain, 0, terms.context, 0)
        inputs = min(terms.context, paying.max_input)
        outputs = min((chat.max_output or terms.max_output) * chat.choices, (1 << 32) - 1)
        request = Request(
            quote_hash=candidate.quote_hash,
            client=self.identity.address,
            lane=paying.lane,
            request_id=nonce.request_id,
            request_hash=request_hash(nonce.salt, terms.id, chat.body),
            max_input_tokens=inputs,
            max_output_tokens=outputs,
            max_cost=max(0, cost(candidate.quote, inputs, 0, outputs) - paying.spent),
            deadline=deadline,
        )
        encoded, signature = sign_request(request, self.identity, paying.domain)
        call = ChatCall(encoded, signature, nonce.salt, terms.id, paying.domain.chain_id)
        return Order(call, request, request_digest(encoded, paying.domain), candidate.quote, paying.domain)
