"""A node's identity: a secp256k1 key whose Ethereum address is the node id. It never reads a file and never prints a key."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final, Literal, NewType

import coincurve
import sha3

from lloom.core.errors import PeerFault

NodeId = NewType("NodeId", bytes)
"""20 bytes: the Ethereum address, and the Kademlia id."""

Purpose = Literal["certificate", "hello", "datagram", "record", "offer", "vouch"]
"""One purpose per kind of signature, so that none can serve as another."""

SIGNATURE_BYTES: Final = 65
ADDRESS_BYTES: Final = 20


def keccak(data: bytes) -> bytes:
    """Keccak-256 of `data`, 32 bytes (Ethereum's hash, not SHA3-256)."""
    found: bytes = sha3.keccak_256(data).digest()
    return found


def digest(purpose: Purpose, network: str, data: bytes) -> bytes:
    """The 32 bytes that a signature for `purpose` covers: bound to purpose and network (EIP-191 style prefix)."""
    name = network.encode()
    return keccak(b"\x19Lloom:%s:v1\n" % purpose.encode() + len(name).to_bytes(2, "big") + name + data)


class Identity:
    """A private key and the address it stands for. Holds the key in memory only; `repr` shows the address."""

    __slots__ = ("_key", "address")

    def __init__(self, secret: bytes) -> None:
        """`secret`: 32 bytes, a valid secp256k1 scalar; ValueError otherwise."""
        self._key = coincurve.PrivateKey(secret)
        self.address = _address(self._key.public_key)

    @classmethod
    def generate(cls) -> Identity:
        """A new identity from the system's randomness."""
        return cls(coincurve.PrivateKey().secret)

    @property
    def secret(self) -> bytes:
        """The 32 secret bytes; for keystores only."""
        return self._key.secret

    def derived(self, name: str) -> Identity:
        """A further identity, the same for the same `name`; who does not have this key cannot see that they belong together.

        Its key is HMAC-SHA256 of `name` under this one (a pseudo-random function, RFC 2104): an invalid scalar is as unlikely as
        guessing the key.
        """
        return Identity(hmac.digest(self.secret, b"Lloom derived key:" + name.encode(), hashlib.sha256))

    def sign(self, purpose: Purpose, network: str, data: bytes) -> bytes:
        """65 bytes (r, s, recovery id) over `digest(purpose, network, data)`."""
        return self.sign_digest(digest(purpose, network, data))

    def sign_digest(self, digest: bytes) -> bytes:
        """65 bytes (r, s, recovery id) over a ready 32-byte digest, low-s (EIP-2)."""
        return self._key.sign_recoverable(digest, hasher=None)

    def __repr__(self) -> str:
        return f"Identity({checksum(self.address)})"


def recover(digest: bytes, signature: bytes) -> NodeId:
    """The address whose key signed `digest`. PeerFault if the signature cannot be one.

    Tampered data does not fail here: it gives another address. The caller compares with the address *inside* the signed bytes.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise PeerFault("a signature of the wrong length", code="bad_signature")
    try:
        return _address(coincurve.PublicKey.from_signature_and_message(signature, digest, hasher=None))
    except Exception as error:  # coincurve raises bare Exception on some malformed input
        raise PeerFault("a malformed signature", code="bad_signature") from error


def verify(purpose: Purpose, network: str, data: bytes, signature: bytes, claimed: NodeId) -> None:
    """PeerFault unless `claimed` signed `data` for `purpose` on `network`."""
    if recover(digest(purpose, network, data), signature) != claimed:
        raise PeerFault(f"a {purpose} that {checksum(claimed)} did not sign", code="bad_signature")


def checksum(address: NodeId) -> str:
    """`0x…` with the mixed-case checksum of EIP-55."""
    text = address.hex()
    hashed = keccak(text.encode()).hex()
    return "0x" + "".join(c.upper() if int(h, 16) >= 8 else c for c, h in zip(text, hashed, strict=False))


def parse_address(text: str) -> NodeId:
    """The 20 bytes of a `0x…` address; ValueError if it is none, or if a mixed-case one fails its checksum (EIP-55)."""
    raw = bytes.fromhex(text.removeprefix("0x"))
    if len(raw) != ADDRESS_BYTES:
        raise ValueError(f"an address has 40 hexadecimal digits, this has {2 * len(raw)}")
    address = NodeId(raw)
    digits = text.removeprefix("0x")
    if digits not in (digits.lower(), digits.upper()) and checksum(address) != "0x" + digits:
        raise ValueError(f"the checksum of {text} is wrong (EIP-55): one of its characters was changed")
    return address


def _address(public: coincurve.PublicKey) -> NodeId:
    return NodeId(keccak(public.format(compressed=False)[1:])[12:])
