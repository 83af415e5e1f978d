"""What an executor delivered and charges, signed as EIP-712 typed data and checked by its client. It settles nothing.

What arrives is bytes and a signature (`SignedReceipt`); only `check_receipt` makes a `CheckedReceipt` of it, and only that may be
acted on. It travels as its encoded words.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import msgspec
from msgspec import Struct

from lloom.core.billing.lane import Lane
from lloom.core.billing.quote import Quote, cost
from lloom.core.billing.request import Request
from lloom.core.eip712 import WORD, Domain, StructType, signer
from lloom.core.errors import PeerFault
from lloom.core.identity import Identity, NodeId, checksum
from lloom.core.messages import SignedReceipt

RECEIPT: Final = StructType(
    "Receipt(bytes32 requestDigest,bytes32 model,bytes32 responseHash,uint64 responseBytes,uint32 inputTokens,"
    "uint32 cachedTokens,uint32 outputTokens,uint128 cost,uint64 laneSeq,uint128 laneCharged,uint64 startedAt,"
    "uint64 finishedAt,uint8 status)"
)


class Status(IntEnum):
    """How a request ended."""

    COMPLETE = 0
    CANCELLED = 1
    """By the client: billed up to the byte it had received."""
    FAILED = 2
    """By the executor's fault: it costs nothing."""
    UNPAID = 3
    """By the executor, for want of credit: billed up to its last byte."""


_STATUSES: Final = frozenset(Status)


class Receipt(Struct, frozen=True):
    """What an executor delivered and charges. Times are Unix milliseconds.

    The prompt had `input_tokens + cached_tokens`, each billed at its own price: OpenAI's `prompt_tokens` is the sum of both.
    """

    request_digest: bytes
    model: bytes
    response_hash: bytes
    response_bytes: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost: int
    lane_seq: int
    """1, 2, 3 … without gaps on its lane; two different receipts with one number prove fraud."""
    lane_charged: int
    """Everything ever charged on the lane, this receipt included."""
    started_at: int
    finished_at: int
    status: int


class Draft(Struct, frozen=True, kw_only=True):
    """A receipt before it is numbered and signed: what a Worker knows. Fields as in `Receipt`."""

    lane: Lane
    request_digest: bytes
    model: bytes
    response_hash: bytes
    response_bytes: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost: int
    started_at: int
    finished_at: int
    status: Status

    def numbered(self, seq: int, charged: int) -> Receipt:
        """The receipt with number `seq` of its lane, on which `charged` was charged before."""
        return Receipt(
            self.request_digest,
            self.model,
            self.response_hash,
            self.response_bytes,
            self.input_tokens,
            self.cached_tokens,
            self.output_tokens,
            self.cost,
            lane_seq=seq,
            lane_charged=charged + self.cost,
            started_at=self.started_at,
            finished_at=self.finished_at,
            status=self.status,
        )


class CheckedReceipt(Struct, frozen=True):
    """A receipt that `executor` did sign and that agrees with what the client knows."""

    executor: NodeId
    receipt: Receipt
    signed: SignedReceipt


class Delivery(Struct, frozen=True):
    """What a client knows of a request it made: its terms, and what has arrived."""

    request: Request
    request_digest: bytes
    quote: Quote
    response_hash: bytes
    response_bytes: int


def sign_receipt(receipt: Receipt, identity: Identity, domain: Domain) -> SignedReceipt:
    """The exact bytes of a receipt and their signature; OverflowError if an amount is larger than its field."""
    encoded = RECEIPT.encode(msgspec.structs.astuple(receipt))
    return SignedReceipt(encoded, identity.sign_digest(domain.digest(RECEIPT, encoded)))


def read_receipt(encoded: bytes) -> Receipt:
    """The receipt within, unchecked but for its form; PeerFault if it is none."""
    return Receipt(*RECEIPT.decode(encoded))  # type: ignore[arg-type]


def request_named(encoded: bytes) -> bytes:
    """The digest of the request that a receipt is of, nothing else of it looked at; PeerFault if it has not a receipt's size."""
    if len(encoded) != RECEIPT.size:
        raise PeerFault(f"{len(encoded)} bytes where {RECEIPT.size} were expected", code="bad_message")
    return encoded[:WORD]


def check_receipt(signed: SignedReceipt, delivery: Delivery, domain: Domain) -> CheckedReceipt:
    """The receipt within, signed by the quote's executor and true to `delivery`; PeerFault says what is wrong with it."""
    receipt, executor = read_receipt(signed.receipt), NodeId(delivery.quote.executor)
    if signer(domain.digest(RECEIPT, signed.receipt), signed.signature) != executor:
        raise PeerFault(f"a receipt that {checksum(executor)} did not sign", code="bad_signature")
    problem = _contradiction(receipt, delivery)
    if problem is not None:
        raise PeerFault(f"{checksum(executor)} signed a receipt with {problem}", code="bad_receipt")
    return CheckedReceipt(executor, receipt, signed)


def _contradiction(receipt: Receipt, delivery: Delivery) -> str | None:
    """What in `receipt` disagrees with what the client knows, None if nothing does."""
    request, quote = delivery.request, delivery.quote
    tokens = (receipt.input_tokens, receipt.cached_tokens, receipt.output_tokens)
    failed = receipt.status == Status.FAILED
    arrived = (delivery.response_bytes, delivery.response_hash)
    rules = (
        (receipt.request_digest == delivery.request_digest, "another request"),
        (receipt.model == quote.model, "another model"),
        (receipt.status in _STATUSES, "an unknown status"),
        # What a failed executor sent last may never have arrived; it asks nothing for it.
        (failed or (receipt.response_bytes, receipt.response_hash) == arrived, "another answer than what arrived"),
        (tokens[0] + tokens[1] <= request.max_input_tokens, "more input tokens than were allowed"),
        (tokens[2] <= request.max_output_tokens, "more output tokens than were allowed"),
        (receipt.cost == (0 if failed else cost(quote, *tokens)), "a cost that is not the quoted one"),
        (receipt.cost <= request.max_cost, "a cost over the request's ceiling"),
        (receipt.started_at <= receipt.finished_at, "an end before its beginning"),
        (receipt.lane_seq > 0 and receipt.lane_charged >= receipt.cost, "an impossible place on its lane"),
    )
    for holds, problem in rules:
        if not holds:
            return problem
    return None
