"""The executor's offers as they bind this Worker. It signs none."""

from __future__ import annotations

from dataclasses import dataclass

from lloom.core.billing.quote import Quote, quote_hash, quotes_of
from lloom.core.errors import RetryElsewhere
from lloom.core.offer import ModelOffer, Offer, Payment


@dataclass(frozen=True, slots=True)
class Terms:
    """What one request is served under."""

    quote: Quote
    model: ModelOffer
    payment: Payment | None = None
    """None: nothing is to be paid."""


class Book:
    """The offers that still bind: the newest, and those before it until they expire, because clients hold their quotes."""

    def __init__(self) -> None:
        self._sealed = b""
        self._expires = 0
        self._terms: dict[bytes, Terms] = {}

    def publish(self, sealed: bytes, offer: Offer, now: float) -> None:
        """Makes `offer` the newest."""
        self._sealed, self._expires = sealed, offer.expires
        self._terms = {key: terms for key, terms in self._terms.items() if terms.quote.valid_until > now}
        for model in offer.models:
            for payment, quote in quotes_of(offer, model):
                self._terms[quote_hash(quote)] = Terms(quote, model, payment)

    def sealed(self, now: float) -> bytes:
        """The newest offer, signed; RetryElsewhere (503) while there is none that holds: the executor's head is away."""
        if self._expires <= now:
            raise RetryElsewhere(
                "This executor has no offer right now; it is starting.", status=503, code="starting", retry_after=1.0
            )
        return self._sealed

    def terms(self, quote: bytes, now: float) -> Terms:
        """The terms that the hash `quote` names; RetryElsewhere if they are not this executor's, or no longer."""
        found = self._terms.get(quote)
        if found is None or found.quote.valid_until <= now:
            raise RetryElsewhere(
                "The quote is unknown or has expired; ask for the offer again.", status=409, code="quote"
            )
        return found
