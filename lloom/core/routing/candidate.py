"""Whom a request may go to, or why to nobody. It ranks nobody."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from msgspec import Struct

from lloom.core.billing.quote import Quote
from lloom.core.identity import NodeId
from lloom.core.offer import Endpoint, ModelOffer, Payment
from lloom.core.routing.outcomes import Place
from lloom.core.routing.standing import Standing

Code = Literal[
    "no_executor",
    "busy",
    "context_length_exceeded",
    "invalid_value",
    "unsupported_operation",
    "unsupported_feature",
    "payment_required",
    "insufficient_quota",
    "price",
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
    place: Place = field(init=False, repr=False, compare=False)
    """What outcomes are remembered under."""
    price: int = field(init=False, repr=False, compare=False)
    """One number to compare prices by."""

    def __post_init__(self) -> None:
        terms = self.terms
        object.__setattr__(self, "place", (self.executor, self.endpoint, terms.id))
        object.__setattr__(self, "price", _INPUT_SHARE * terms.input_price + terms.output_price)


class Entrant(Struct, frozen=True):
    """A candidate, and how its place stands now."""

    candidate: Candidate
    standing: Standing


class Choice(Struct, frozen=True):
    """Who is asked next. `score`: from 0 to 1, among the `of` that could take the request; `exploring`: to find out how it is."""

    candidate: Candidate
    policy: str
    score: float
    of: int
    exploring: bool

    def __str__(self) -> str:
        """As the caller is told of it in a header."""
        words = f"policy={self.policy}; score={self.score:.2f}; of={self.of}"
        return f"{words}; exploring" if self.exploring else words


@dataclass(frozen=True, slots=True)
class Nobody:
    """Why nobody is left. `param`: the field of the request that no executor can satisfy; `soon`: whether time mends it."""

    reason: str
    code: Code = "no_executor"
    param: str | None = None
    retry_after: float | None = None
    soon: bool = False
