"""What a client orders, at most, signed as EIP-712 typed data. It holds of the body and the quote only their hashes.

What arrives is bytes and a signature (`ModelCall.request`); only `check_request` makes a `CheckedRequest` of it, and only that
may be acted on. It travels as its encoded words.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec
from msgspec import Struct

from lloom.core.api.request import Operation
from lloom.core.eip712 import Domain, StructType, signer
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import Identity, NodeId, checksum

REQUEST: Final = StructType(
    "Request(bytes32 quoteHash,address client,uint64 lane,bytes32 requestId,bytes32 requestHash,uint32 maxInputTokens,"
    "uint32 maxOutputTokens,uint128 maxCost,uint64 deadline)"
)


class Request(Struct, frozen=True):
    """What a client orders, at most: tokens, cost in the quote's token, and until when (Unix seconds)."""

    quote_hash: bytes
    client: bytes
    lane: int
    request_id: bytes
    """32 random bytes: they make equal requests different."""
    request_hash: bytes
    max_input_tokens: int
    max_output_tokens: int
    max_cost: int
    deadline: int


class CheckedRequest(Struct, frozen=True):
    """A request that `request.client` did sign and whose deadline has not passed."""

    request: Request
    digest: bytes


def request_hash(salt: bytes, operation: Operation, model: str, body: bytes) -> bytes:
    """SHA-256 over a request's salt (16 bytes), operation, model and body: the client signs it; it tells nobody else anything."""
    name = f"{operation} {model}".encode()
    return hashlib.sha256(salt + len(name).to_bytes(2, "big") + name + body).digest()


def sign_request(request: Request, identity: Identity, domain: Domain) -> tuple[bytes, bytes, bytes]:
    """The encoded request, its `request_digest`, and the 65-byte signature of that."""
    encoded = REQUEST.encode(msgspec.structs.astuple(request))
    digest = request_digest(encoded, domain)
    return encoded, digest, identity.sign_digest(digest)


def request_digest(encoded: bytes, domain: Domain) -> bytes:
    """The 32 bytes that were signed for an encoded request: its name in receipts and journals."""
    return domain.digest(REQUEST, encoded)


def check_request(encoded: bytes, signature: bytes, domain: Domain, now: float) -> CheckedRequest:
    """The request within, signed by its client and not past its deadline at `now` (Unix seconds).

    PeerFault if it is malformed or somebody else signed it; RetryElsewhere if it came too late by this node's clock.
    The caller compares client, quote and, once it has the body, `request_hash` with what it knows.
    """
    request = Request(*REQUEST.decode(encoded))  # type: ignore[arg-type]
    digest = request_digest(encoded, domain)
    if signer(digest, signature) != request.client:
        raise PeerFault(f"a request that {checksum(NodeId(request.client))} did not sign", code="bad_signature")
    if request.deadline <= now:
        raise RetryElsewhere(
            "The request came after its deadline, by the executor's clock.", status=504, code="deadline"
        )
    return CheckedRequest(request, digest)
