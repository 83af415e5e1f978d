"""What an executor serves: models, prices, endpoints; signed as a whole. It never says how good the executor is."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from lloom.core.errors import PeerFault
from lloom.core.identity import ADDRESS_BYTES, SIGNATURE_BYTES, Identity, NodeId, checksum, verify

MAX_OFFER_BYTES: Final = 256 * 1024

ModelId = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._:/@+-]{0,127}$")]
Amount = Annotated[int, Meta(ge=0, le=1 << 62)]
Word = Annotated[str, Meta(min_length=1, max_length=64)]


class Endpoint(Struct, frozen=True, array_like=True, order=True, forbid_unknown_fields=True):
    """Where one Worker's bridge is reached: where it listens, or (`via`) where the validator listens that relays to it."""

    host: Annotated[str, Meta(min_length=1, max_length=45)]
    """A literal IPv4 or IPv6 address."""
    port: Annotated[int, Meta(ge=1, le=65_535)]
    via: Annotated[bytes, Meta(max_length=ADDRESS_BYTES)] = b""
    """The address (20 bytes) of the validator that relays; empty where the Worker itself listens."""
    worker: Annotated[int, Meta(ge=0, lt=1 << 16)] = 0
    """Which of the executor's Workers a relay is asked for; 0 where the Worker itself listens."""

    def __str__(self) -> str:
        where = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return f"{where} (relay)" if self.via else where

    def check(self) -> None:
        """PeerFault unless the host is a literal address and `via` an address or empty."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError as error:
            raise PeerFault("an endpoint without a literal address", code="bad_offer") from error
        if len(self.via) not in (0, ADDRESS_BYTES):
            raise PeerFault("an endpoint behind something that is no address", code="bad_offer")


class Payment(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A way to pay an executor: through the contract at this address of a chain (EIP-155), in this token (zero: its coin)."""

    chain: Annotated[int, Meta(ge=1, lt=1 << 53)]
    contract: Annotated[bytes, Meta(min_length=ADDRESS_BYTES, max_length=ADDRESS_BYTES)]
    token: Annotated[bytes, Meta(min_length=ADDRESS_BYTES, max_length=ADDRESS_BYTES)]
    rate: Annotated[int, Meta(ge=1, le=1 << 62)]
    """Millionths: prices in this token are the offer's prices times this."""


class ModelOffer(Struct, frozen=True, kw_only=True):
    """One model and its terms. Prices are smallest units of the payment token per million tokens."""

    id: ModelId
    context: Annotated[int, Meta(ge=1, lt=1 << 32)]
    max_output: Annotated[int, Meta(ge=1, lt=1 << 32)]
    parallel: Annotated[int, Meta(ge=1, le=1_000_000)]
    encoding: Annotated[str, Meta(max_length=64)]
    operations: Annotated[tuple[Word, ...], Meta(min_length=1, max_length=16)] = ("chat",)
    """What it can be asked to do (`api.request.Operation`, or what only others know)."""
    features: Annotated[tuple[Word, ...], Meta(max_length=32)] = ()
    backend: Annotated[str, Meta(max_length=64)]
    input_price: Amount = 0
    output_price: Amount = 0


class Offer(Struct, frozen=True, kw_only=True):
    """All an executor offers. `seq` grows with every change; times are Unix seconds."""

    executor: Annotated[bytes, Meta(min_length=20, max_length=20)]
    seq: Annotated[int, Meta(ge=0, lt=1 << 62)]
    expires: Annotated[int, Meta(ge=0, lt=1 << 53)]
    endpoints: Annotated[tuple[Endpoint, ...], Meta(max_length=64)]
    models: Annotated[tuple[ModelOffer, ...], Meta(max_length=1024)]
    software: Annotated[str, Meta(max_length=64)]
    payments: Annotated[tuple[Payment, ...], Meta(max_length=16)] = ()
    """Any one of these; none: nobody pays here, whatever the prices."""
    window: Annotated[int, Meta(ge=0, lt=1 << 32)] = 0
    """Output tokens to be paid for before they are made."""

    @property
    def goodbye(self) -> bool:
        """Whether the executor takes back what it offered: nothing is served any more."""
        return not self.models

    def model(self, model: str) -> ModelOffer | None:
        """The terms of `model` (a canonical id), None if it is not offered."""
        return next((m for m in self.models if m.id == model), None)


_decoder = msgspec.msgpack.Decoder(Offer)
_ID: Final = re.compile(r"[a-z0-9][a-z0-9._:/@+-]{0,127}")


def canonical(model: str) -> str:
    """The network's spelling of a model id: lower case, outer blanks gone. ValueError if no id can be made of it."""
    name = model.strip().lower()
    if not _ID.fullmatch(name):
        raise ValueError(f"{model[:64]!r} is not a model id (letters, digits and . _ : / @ + - , at most 128)")
    return name


def seal(offer: Offer, identity: Identity, network: str) -> bytes:
    """The signed bytes of `offer`: msgpack followed by a 65-byte signature."""
    payload = msgspec.msgpack.encode(offer)
    return payload + identity.sign("offer", network, payload)


def fingerprint(sealed: bytes) -> bytes:
    """32 bytes (SHA-256) that name exactly this sealed offer; they stand in the executor's DHT record."""
    return hashlib.sha256(sealed).digest()


def unseal(sealed: bytes, executor: NodeId, network: str, now: float) -> Offer:
    """The offer within, checked: size, form, `executor`'s signature, not expired at `now` (Unix seconds); else PeerFault."""
    if not SIGNATURE_BYTES < len(sealed) <= MAX_OFFER_BYTES:
        raise PeerFault("an offer of impossible size", code="bad_offer")
    payload, signature = sealed[:-SIGNATURE_BYTES], sealed[-SIGNATURE_BYTES:]
    verify("offer", network, payload, signature, executor)
    try:
        offer = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerFault(f"a malformed offer of {checksum(executor)}: {error}", code="bad_offer") from error
    if offer.executor != executor:
        raise PeerFault(f"{checksum(executor)} signed somebody else's offer", code="bad_offer")
    for endpoint in offer.endpoints:
        endpoint.check()
    if offer.expires <= now:
        raise PeerFault(f"the offer of {checksum(executor)} has expired", code="expired")
    return offer
