"""What validators are told and asked, and what they answer."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from lloom.core.messages.base import Address, Message, Text, Tokens, Word


class RegisterCall(Message, frozen=True):
    """OPEN, to a validator: the caller's own sealed offer follows as DATA, for the catalogue. One without models is a goodbye."""


class Models(Message, frozen=True):
    """Query: every model that is offered. Answered by `ModelsPage`."""


class Search(Message, frozen=True):
    """Query: offers that fulfil every condition; an empty one holds for all. Answered by `OffersPage`."""

    model: Annotated[str, Meta(max_length=128)] = ""
    """A canonical model id."""
    executors: Annotated[tuple[Address, ...], Meta(max_length=64)] = ()
    """Only these."""
    features: Annotated[tuple[Word, ...], Meta(max_length=32)] = ()
    """All of these, at one model."""
    context: Tokens = 0
    """At least this long, at one model."""
    input_price: Annotated[int, Meta(ge=0, le=1 << 62)] | None = None
    """At most this, at one model; as `output_price`, in smallest units per million tokens."""
    output_price: Annotated[int, Meta(ge=0, le=1 << 62)] | None = None
    backend: Word = ""


class Statistics(Message, frozen=True):
    """Query: the network in numbers. Answered by `Numbers`."""


Query = Models | Search | Statistics


class CatalogueCall(Message, frozen=True):
    """OPEN, to a validator: one page of what its catalogue says to `query`, as DATA."""

    query: Query
    after: Annotated[bytes, Meta(max_length=128)] = b""
    """`next` of the page before; empty for the first one."""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100


class GossipCall(Message, frozen=True):
    """OPEN, from a validator to a fellow: a `News` of what changed since, as DATA."""

    epoch: Annotated[int, Meta(ge=0, lt=1 << 62)] = 0
    """As in the last `News`; 0 asks for everything."""
    version: Annotated[int, Meta(ge=0, lt=1 << 62)] = 0


class ReachCall(Message, frozen=True):
    """OPEN, to a validator: dial the caller back at these ports of the address it comes from. Answered by `Reached`, as DATA."""

    ports: Annotated[tuple[Annotated[int, Meta(ge=1, le=65_535)], ...], Meta(min_length=1, max_length=16)]


class ReserveCall(Message, frozen=True):
    """OPEN, from a Worker to a validator: relay to me, over this connection, as long as this stream stays open.

    One byte of DATA says that it is so.
    """

    worker: Annotated[int, Meta(ge=0, lt=1 << 16)]


class RelayCall(Message, frozen=True):
    """OPEN, from a client to a validator: whatever is sent here as DATA, pass it on to this Worker, and back."""

    executor: Address
    worker: Annotated[int, Meta(ge=0, lt=1 << 16)]


class RelayedCall(Message, frozen=True):
    """OPEN, from a validator to a Worker that asked for it: somebody's bytes, both ways, as DATA. They are TLS of a bridge."""


class ModelSummary(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One model over all its executors."""

    id: Annotated[str, Meta(max_length=128)]
    executors: Tokens
    context: Tokens
    """The longest."""
    features: Annotated[tuple[Word, ...], Meta(max_length=32)]
    """Those that some executor has."""
    input_price: tuple[int, int]
    """Lowest and highest."""
    output_price: tuple[int, int]


class Listing(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One executor as a validator knows it; every part proves itself by its signature."""

    executor: Address
    offer: Annotated[bytes, Meta(max_length=256 * 1024)]
    """Sealed (core/offer.py)."""
    vouches: Annotated[tuple[Annotated[bytes, Meta(max_length=16 * 1024)], ...], Meta(max_length=16)]
    """Sealed (core/vouch.py), by this validator and its fellows."""


class ModelsPage(Message, frozen=True):
    """Answer to `Models`. `next`: what to ask for the page after, empty after the last; `total`: at most so many on all pages."""

    models: Annotated[tuple[ModelSummary, ...], Meta(max_length=1000)]
    next: Annotated[bytes, Meta(max_length=128)]
    total: Tokens


class OffersPage(Message, frozen=True):
    """Answer to `Search`; a page holds fewer than asked for, or none, if they would take more than `MAX_PAGE` bytes, or if few of
    many fit.
    """

    listings: Annotated[tuple[Listing, ...], Meta(max_length=1000)]
    next: Annotated[bytes, Meta(max_length=128)]
    total: Tokens


class Numbers(Message, frozen=True):
    """Answer to `Statistics`."""

    executors: Tokens
    models: Tokens
    workers: Tokens
    vouched: Tokens
    """Executors of which a valid statement says that they answer."""
    relayed: Tokens
    """Executors reached through relays only."""
    validators: Tokens
    """This one, and the fellows it hears from."""
    backends: dict[Word, Tokens]
    """Executors by backend."""


Answered = ModelsPage | OffersPage | Numbers


class News(Message, frozen=True):
    """Answer to `GossipCall`: sealed offers and vouches, and what to ask with next time."""

    epoch: Annotated[int, Meta(ge=0, lt=1 << 62)]
    """Another one than before: the validator was restarted, and counts anew."""
    version: Annotated[int, Meta(ge=0, lt=1 << 62)]
    offers: Annotated[tuple[tuple[Address, bytes], ...], Meta(max_length=1000)]
    vouches: Annotated[tuple[bytes, ...], Meta(max_length=1000)]
    more: bool
    """There is more to be had at once."""


class Reached(Message, frozen=True):
    """Answer to `ReachCall`."""

    host: Annotated[str, Meta(max_length=45)]
    """The address that the caller is seen at."""
    problems: Annotated[tuple[Text, ...], Meta(max_length=16)]
    """For each port why the caller is not reached there; empty if it is."""


MAX_PAGE: Final = 1024 * 1024
"""Bytes of one answer of a validator."""
