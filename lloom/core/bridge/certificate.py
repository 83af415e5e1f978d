"""A server's certificate: a fresh TLS key that a node's Ethereum identity endorses for at most a day. It never asks an authority.

The TLS handshake proves that the server holds the certificate's key; the endorsement, in an extension, proves whose server it is.
Its own signature and names mean nothing and are not looked at (libp2p's TLS specification works the same way).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Meta, Struct

from lloom.core.errors import PeerFault
from lloom.core.identity import Identity, NodeId, checksum, verify
from lloom.core.messages import Address, Signature, decode, decoder

MAX_LIFETIME: Final = 86_400.0
"""Seconds. A stolen TLS key is worth something for no longer than this."""

BACKDATE: Final = 300
"""Seconds by which an endorsement begins earlier, for diallers whose clock is behind."""

MAX_BYTES: Final = 4096
EXTENSION: Final = x509.ObjectIdentifier("2.25.23142523083464964517602839489044949535")
"""From a random UUID (ITU-T X.667): needs no registration."""

_NAME: Final = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lloom")])

UnixSeconds = Annotated[int, Meta(ge=0, lt=1 << 53)]


class Endorsement(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`address` says: the TLS key with this public hash is mine from `not_before` to `not_after`."""

    address: Address
    not_before: UnixSeconds
    not_after: UnixSeconds
    signature: Signature


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a listener shows: an endorsed certificate (DER) and its private key, which `repr` hides."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    der: bytes = field(repr=False)


_endorsement = decoder(Endorsement)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key: the fastest curve that every TLS 1.3 library speaks."""
    return ec.generate_private_key(ec.SECP256R1())


def public_hash(key: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) -> bytes:
    """32 bytes: SHA-256 of the key's SubjectPublicKeyInfo (RFC 5280, section 4.1) in DER."""
    public = key.public_key() if isinstance(key, ec.EllipticCurvePrivateKey) else key
    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def endorse(identity: Identity, network: str, public_hash: bytes, now: float, lifetime: float) -> Endorsement:
    """`identity` vouches for a TLS key until `now + lifetime` (Unix seconds). ValueError if `lifetime` is over a day."""
    if not 0 < lifetime <= MAX_LIFETIME:
        raise ValueError(f"a certificate lives up to {MAX_LIFETIME:.0f} seconds, not {lifetime:.0f}")
    start, end = max(0, int(now) - BACKDATE), int(now + lifetime)
    signature = identity.sign("certificate", network, _statement(identity.address, public_hash, start, end))
    return Endorsement(identity.address, start, end, signature)


def issue(key: ec.EllipticCurvePrivateKey, endorsement: Endorsement) -> bytes:
    """A self-signed certificate (DER) for `key` that carries `endorsement`."""
    extension = x509.UnrecognizedExtension(EXTENSION, msgspec.msgpack.encode(endorsement))
    return (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(endorsement.not_before, UTC))
        .not_valid_after(datetime.fromtimestamp(endorsement.not_after, UTC))
        .add_extension(extension, critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def check(certificate_der: bytes, wanted: NodeId, network: str, now: float) -> None:
    """PeerFault unless the certificate's key is endorsed by `wanted`, on `network`, at `now` (Unix seconds)."""
    public, endorsement = _open(certificate_der)
    if endorsement.address != wanted:
        raise _fault(f"the server is {checksum(NodeId(endorsement.address))}, not {checksum(wanted)}")
    start, end = endorsement.not_before, endorsement.not_after
    if not start <= now <= end:
        raise _fault(f"the certificate of {checksum(wanted)} is not valid now; one of the two clocks may be wrong")
    if end - start > MAX_LIFETIME + BACKDATE:
        raise _fault(f"the certificate of {checksum(wanted)} lives longer than a day")
    verify("certificate", network, _statement(wanted, public, start, end), endorsement.signature, wanted)


def _open(certificate_der: bytes) -> tuple[bytes, Endorsement]:
    """The public hash and the endorsement, nothing checked but the form."""
    if len(certificate_der) > MAX_BYTES:
        raise _fault("a certificate that is too long")
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
        extension = certificate.extensions.get_extension_for_oid(EXTENSION).value
        public = certificate.public_key()
    except (
        Exception
    ) as error:  # the parser has no common base: ValueError, TypeError, UnsupportedAlgorithm, ExtensionNotFound …
        raise _fault("a certificate without a readable endorsement") from error
    if not isinstance(extension, x509.UnrecognizedExtension) or not isinstance(public, ec.EllipticCurvePublicKey):
        raise _fault("a certificate of another kind")
    return public_hash(public), decode(extension.value, _endorsement)


def _statement(address: bytes, public_hash: bytes, start: int, end: int) -> bytes:
    return address + public_hash + start.to_bytes(8, "big") + end.to_bytes(8, "big")


def _fault(message: str) -> PeerFault:
    return PeerFault(message, code="bad_certificate")
