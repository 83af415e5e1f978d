"""What one executor is asked to do, at most, signed by the client. It draws no random bytes: they are given."""

from __future__ import annotations

from dataclasses import dataclass

from lloom.core.chat import ChatRequest
from lloom.core.eip712 import Domain
from lloom.core.identity import Identity
from lloom.core.messages import ChatCall
from lloom.core.receipt import Quote, Request, cost, request_digest, request_hash, sign_request
from lloom.core.selection import Candidate

_LANE = 0


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


@dataclass(frozen=True, slots=True)
class Client:
    """Who signs, and for which chain and contract."""

    identity: Identity
    domain: Domain

    def order(self, chat: ChatRequest, candidate: Candidate, nonce: Nonce, deadline: int) -> Order:
        """The order of `chat` at `candidate`, to be done before `deadline` (Unix seconds).

        The prompt's tokens are not counted here: no prompt is longer than the context, and templates add to it.
        """
        terms = candidate.terms
        outputs = min((chat.max_output or terms.max_output) * chat.choices, (1 << 32) - 1)
        request = Request(
            quote_hash=candidate.quote_hash,
            client=self.identity.address,
            lane=_LANE,
            request_id=nonce.request_id,
            request_hash=request_hash(nonce.salt, terms.id, chat.body),
            max_input_tokens=terms.context,
            max_output_tokens=outputs,
            max_cost=cost(candidate.quote, terms.context, 0, outputs),
            deadline=deadline,
        )
        encoded, signature = sign_request(request, self.identity, self.domain)
        call = ChatCall(encoded, signature, nonce.salt, terms.id)
        return Order(call, request, request_digest(encoded, self.domain), candidate.quote)
