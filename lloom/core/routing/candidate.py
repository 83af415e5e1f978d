"""Whom a request may go to, or why to nobody. It ranks nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from lloom.core.identity import NodeId
from lloom.core.offer import Endpoint, ModelOffer, Payment
from lloom.core.receipt import Quote
from lloom.core.routing.outcomes import Place

Code = Literal[
    "no_executor", "context_length_exceeded", "invalid_value", "unsupported_operation", "payment_required", "price"
]

_INPUT_SHARE: Final = 3
"""Input tokens for one output token in a price that compares offers."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One worker of an executor that offers the model, under terms it signed."""

    executor: NodeId
    endpoint: Endpoint
    terms: ModelOffer
    quote: Quote
    quote_hash: bytes
    payment: Payment | None = None
    """How it is paid; None: nothing is to be paid."""

    @property
    def place(self) -> Place:
        """What outcomes are remembered under."""
        return self.executor, self.endpoint, self.terms.id

    @property
    def price(self) -> int:
        """One number to compare prices by."""
        return _INPUT_SHARE * self.terms.input_price + self.terms.output_price


@dataclass(frozen=True, slots=True)
class Nobody:
    """Why nobody is left. `param`: the field of the request that no executor can satisfy."""

    reason: str
    code: Code = "no_executor"
    param: str | None = None
    retry_after: float | None = None
