"""Signed, expiring records of the distributed hash table: form, checks, merge rule. It never stores, sends or reads a clock.

A record is the msgpack array `[version, kind, key, publisher, seq, expiry, body]` followed by a 65-byte signature of its
publisher. Many publishers write under one key; of each, the newest `(seq, expiry)` counts. Only the publisher can extend a
record's life; an empty body is a goodbye. Two kinds: INDEX says "I serve this model", OFFER says "here I listen, and this is
the hash of my signed offer".
"""

from __future__ import annotations

import enum
import hashlib
import ipaddress
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NewType, TypeVar

import msgspec
from msgspec import Meta, Struct

from lloom.core.errors import PeerFault
from lloom.core.identity import ADDRESS_BYTES, SIGNATURE_BYTES, Identity, NodeId, verify
from lloom.core.offer import Endpoint, canonical

T = TypeVar("T")

Key = NewType("Key", bytes)
"""20 bytes: a point of the Kademlia id space."""

VERSION: Final = 1
KEY_BYTES: Final = 20
ALL: Final = "*"
"""The pseudo-model under which every executor is indexed as well, so that all of them can be listed."""

# A holder believes no promise longer than this, so a record that nobody renews is soon gone.
MAX_LIFETIME: Final = 3600
# Clocks of honest nodes differ by less than this (seconds).
MAX_SKEW: Final = 60
# The rest of a large node's endpoints stand in its signed offer.
MAX_ENDPOINTS: Final = 8
MAX_BODY: Final = 320
# Head of at most 68 bytes, body, signature: one of these and eight neighbours fit one datagram in any case.
MAX_RECORD: Final = 68 + MAX_BODY + SIGNATURE_BYTES


class Kind(enum.IntEnum):
    """What a record is about."""

    INDEX = 1
    OFFER = 2


class Record(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the signature covers. `expiry` is in Unix seconds, `seq` grows with every change of content."""

    version: Literal[1]
    kind: Kind
    key: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    publisher: Annotated[bytes, Meta(min_length=ADDRESS_BYTES, max_length=ADDRESS_BYTES)]
    seq: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    expiry: Annotated[int, Meta(ge=0, lt=1 << 53)]
    body: Annotated[bytes, Meta(max_length=MAX_BODY)]

    @property
    def goodbye(self) -> bool:
        """True if the publisher takes back what it said under this key."""
        return not self.body


@dataclass(frozen=True, slots=True)
class SignedRecord:
    """A record whose signature and form were checked, with the exact bytes to pass on."""

    record: Record
    raw: bytes


@dataclass(frozen=True, slots=True)
class Stamp:
    """Who publishes, in which state (`seq`), good until when (`expiry`, Unix seconds)."""

    publisher: NodeId
    seq: int
    expiry: int


class IndexBody(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Body of an INDEX record: the canonical model id, or `ALL`, and the shard of its key."""

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    shard: Annotated[int, Meta(ge=0, le=255)]


@dataclass(frozen=True, slots=True)
class OfferBody:
    """Body of an OFFER record: where the executor listens (at most `MAX_ENDPOINTS`) and `offer.fingerprint`, 32 bytes."""

    endpoints: tuple[Endpoint, ...]
    fingerprint: bytes


class _PackedEndpoint(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    host: Annotated[bytes, Meta(min_length=4, max_length=16)]
    port: Annotated[int, Meta(ge=1, le=65_535)]
    via: Annotated[bytes, Meta(max_length=ADDRESS_BYTES)]
    worker: Annotated[int, Meta(ge=0, lt=1 << 16)]


class _PackedOffer(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`OfferBody` on the wire: addresses as 4 or 16 bytes, so that nothing but a literal address can be written."""

    endpoints: Annotated[tuple[_PackedEndpoint, ...], Meta(max_length=MAX_ENDPOINTS)]
    fingerprint: Annotated[bytes, Meta(min_length=32, max_length=32)]


_encode = msgspec.msgpack.Encoder().encode
_record_decoder = msgspec.msgpack.Decoder(Record)
_index_decoder = msgspec.msgpack.Decoder(IndexBody)
_offer_decoder = msgspec.msgpack.Decoder(_PackedOffer)


def index_key(network: str, model: str, shard: int = 0) -> Key:
    """Where the executors of `model` (a canonical id, or `ALL`) are indexed."""
    return _key(network, b"index", model.encode(), bytes([shard]))


def offer_key(network: str, address: NodeId) -> Key:
    """Where `address`, and nobody else, says how it is reached."""
    return _key(network, b"offer", address)


def index_record(network: str, model: str, stamp: Stamp, shard: int = 0) -> Record:
    """ "I serve `model`" (a canonical id, or `ALL`)."""
    return _record(Kind.INDEX, index_key(network, model, shard), stamp, _encode(IndexBody(model, shard)))


def offer_record(network: str, body: OfferBody, stamp: Stamp) -> Record:
    """ "Here I listen, and this is the hash of my offer." ValueError if an endpoint's host is no literal address.

    As many endpoints are told as fit.
    """
    endpoints = [_packed(endpoint) for endpoint in body.endpoints[:MAX_ENDPOINTS]]
    while len(packed := _encode(_PackedOffer(tuple(endpoints), body.fingerprint))) > MAX_BODY:
        endpoints.pop()
    return _record(Kind.OFFER, offer_key(network, stamp.publisher), stamp, packed)


def goodbye(record: Record, seq: int, expiry: int) -> Record:
    """What takes `record` back. It should live as long as a copy of `record` may."""
    return msgspec.structs.replace(record, seq=seq, expiry=expiry, body=b"")


def renewed(record: Record, expiry: int) -> Record:
    """The same content with a longer life."""
    return msgspec.structs.replace(record, expiry=expiry)


def sign(record: Record, identity: Identity, network: str) -> SignedRecord:
    """`record` with the signature of its publisher, `identity`."""
    payload = _encode(record)
    return SignedRecord(record, payload + identity.sign("record", network, payload))


def check(raw: bytes, network: str) -> SignedRecord:
    """`raw` as a record with valid form, signature, body and key; PeerFault otherwise. See `check_time` for its age.

    The encoding must be the canonical one, else one record could travel in many guises and count many times.
    """
    if not SIGNATURE_BYTES < len(raw) <= MAX_RECORD:
        raise _bad("a record of impossible size")
    payload, signature = raw[:-SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:]
    record = _strict(payload, _record_decoder)
    if record.key != _rightful_key(record, network):
        raise _bad("a record under a key that is not its own")
    verify("record", network, payload, signature, NodeId(record.publisher))
    return SignedRecord(record, raw)


def check_time(record: Record, now: float) -> None:
    """PeerFault unless `record` is alive at `now` (Unix seconds) and lives no longer than a record may."""
    if record.expiry <= now:
        raise _bad("an expired record")
    if record.expiry > now + MAX_LIFETIME + MAX_SKEW:
        raise _bad("a record that wants to live too long")


def index_body(record: Record) -> IndexBody:
    """The body of an INDEX record that is no goodbye; PeerFault if it is malformed."""
    body = _strict(record.body, _index_decoder)
    if body.model != ALL and not _is_canonical(body.model):
        raise _bad("an index record of something that is no model id")
    return body


def offer_body(record: Record) -> OfferBody:
    """The body of an OFFER record that is no goodbye; PeerFault if it is malformed."""
    packed = _strict(record.body, _offer_decoder)
    try:
        endpoints = tuple(map(_unpacked, packed.endpoints))
    except ValueError as error:
        raise _bad("an offer record with an impossible address") from error
    return OfferBody(endpoints, packed.fingerprint)


def newer(one: Record, other: Record) -> bool:
    """True if `one` replaces `other`, both of one publisher under one key."""
    return (one.seq, one.expiry) > (other.seq, other.expiry)


def merge(held: MutableMapping[NodeId, SignedRecord], incoming: SignedRecord) -> bool:
    """Put `incoming` among the records `held` under its key, unless its publisher said something newer. True if it was put."""
    publisher = NodeId(incoming.record.publisher)
    old = held.get(publisher)
    if old is not None and not newer(incoming.record, old.record):
        return False
    held[publisher] = incoming
    return True


def living(records: Iterable[SignedRecord]) -> list[SignedRecord]:
    """Those that are no goodbyes."""
    return [signed for signed in records if not signed.record.goodbye]


def _rightful_key(record: Record, network: str) -> bytes:
    """The key this record belongs under. The key of a withdrawn index cannot be told from its empty body: it stands as said."""
    if record.kind is Kind.OFFER:
        if not record.goodbye:
            offer_body(record)
        return offer_key(network, NodeId(record.publisher))
    if record.goodbye:
        return record.key
    body = index_body(record)
    return index_key(network, body.model, body.shard)


def _packed(endpoint: Endpoint) -> _PackedEndpoint:
    host = ipaddress.ip_address(endpoint.host).packed
    return _PackedEndpoint(host, endpoint.port, endpoint.via, endpoint.worker)


def _unpacked(packed: _PackedEndpoint) -> Endpoint:
    endpoint = Endpoint(str(ipaddress.ip_address(packed.host)), packed.port, packed.via, packed.worker)
    endpoint.check()
    return endpoint


def _record(kind: Kind, key: Key, stamp: Stamp, body: bytes) -> Record:
    return Record(VERSION, kind, key, stamp.publisher, stamp.seq, stamp.expiry, body)


def _key(network: str, *parts: bytes) -> Key:
    hashed = hashlib.sha256()
    for part in (b"lloom", network.encode(), *parts):
        hashed.update(len(part).to_bytes(2, "big") + part)
    return Key(hashed.digest()[:KEY_BYTES])


def _strict(data: bytes, decoder: msgspec.msgpack.Decoder[T]) -> T:
    try:
        value = decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(f"a malformed record: {error}") from error
    if _encode(value) != data:
        raise _bad("a record in an encoding that is not the canonical one")
    return value


def _is_canonical(model: str) -> bool:
    try:
        return canonical(model) == model
    except ValueError:
        return False


def _bad(what: str) -> PeerFault:
    return PeerFault(what, code="bad_record")
