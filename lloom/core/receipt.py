"""Quotes, requests and receipts: what is signed about a request, and the checks of what a peer signed. It never settles anything.

What arrives is bytes and a signature (`ModelCall.request`, `SignedReceipt`); only the check functions make a `CheckedRequest` or
a `CheckedReceipt` of it, and only those may be acted on. Both are signed as EIP-712 typed data and travel as their encoded words.
"""

from __future__ import annotations

import hashlib
from collections import deque
from enum import IntEnum
from typing import Final

import msgspec
from msgspec import Struct

from lloom.core.api.request import Operation
from lloom.core.eip712 import WORD, Domain, StructType, signer
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import ADDRESS_BYTES, Identity, NodeId, checksum, keccak
from lloom.core.messages import SignedReceipt
from lloom.core.offer import ModelOffer, Offer, Payment

PRICE_UNIT: Final = 10**6
"""Prices are per this many tokens."""

QUOTE: Final = StructType(
    "Quote(address executor,bytes32 model,address token,uint128 inputPrice,uint128 cachedPrice,uint128 outputPrice,"
    "uint128 requestFee,uint128 minWindow,uint64 validFrom,uint64 validUntil,bytes32 tokenizerHash,uint8 basis,"
    "bytes32 termsHash,uint64 seq)"
)
REQUEST: Final = StructType(
    "Request(bytes32 quoteHash,address client,uint64 lane,bytes32 requestId,bytes32 requestHash,uint32 maxInputTokens,"
    "uint32 maxOutputTokens,uint128 maxCost,uint64 deadline)"
)
RECEIPT: Final = StructType(
    "Receipt(bytes32 requestDigest,bytes32 model,bytes32 responseHash,uint64 responseBytes,uint32 inputTokens,"
    "uint32 cachedTokens,uint32 outputTokens,uint128 cost,uint64 laneSeq,uint128 laneCharged,uint64 startedAt,"
    "uint64 finishedAt,uint8 status)"
)


class Basis(IntEnum):
    """How tokens are counted."""

    TEXT = 0
    """From the text, with the quote's tokenizer: a client can count them itself."""
    BACKEND = 1
    """As the backend reports them (reasoning, images); with the quote's tokenizer where it reports nothing."""


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


class Quote(Struct, frozen=True):
    """One model's terms. Amounts are smallest units of `token`, prices per `PRICE_UNIT` tokens, times Unix seconds."""

    executor: bytes
    model: bytes
    token: bytes
    input_price: int
    cached_price: int
    output_price: int
    request_fee: int
    min_window: int
    """Least amount a client has to grant ahead while an answer streams."""
    valid_from: int
    valid_until: int
    tokenizer_hash: bytes
    basis: int
    terms_hash: bytes
    seq: int


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


class Lane(Struct, frozen=True):
    """One line of payments from a client to this executor; chain and contract are the journal's own."""

    client: bytes
    token: bytes
    number: int


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


class CheckedRequest(Struct, frozen=True):
    """A request that `request.client` did sign and whose deadline has not passed."""

    request: Request
    digest: bytes


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


class ResponseHash:
    """SHA-256 over the salt and the DATA bytes of an answer, as they come.

    The last `keep` bytes stay at hand, so that a cancelled answer can be hashed up to the byte its client received:
    the executor keeps a stream's window (no more can be under way), a client keeps nothing.
    """

    __slots__ = ("_hash", "_keep", "_kept", "_tail", "length")

    def __init__(self, salt: bytes, keep: int) -> None:
        self.length = 0
        self._hash = hashlib.sha256(salt)
        self._keep = keep
        self._kept = 0
        self._tail: deque[bytes] = deque()

    def update(self, data: bytes) -> None:
        """Append `data`."""
        self.length += len(data)
        if not self._keep:
            self._hash.update(data)
            return
        self._kept += len(data)
        self._tail.append(data)
        while self._kept - len(self._tail[0]) >= self._keep:
            settled = self._tail.popleft()
            self._kept -= len(settled)
            self._hash.update(settled)

    def digest(self, length: int) -> bytes:
        """The hash of the first `length` bytes; PeerFault if so many were not sent, or so few long since exceeded."""
        missing = length - (self.length - self._kept)
        if not 0 <= missing <= self._kept:
            raise PeerFault(f"{length} bytes received, where {self.length} were sent", code="bad_cancel")
        if not missing:
            return self._hash.digest()
        found = self._hash.copy()
        for data in self._tail:
            found.update(data[:missing])
            missing -= min(missing, len(data))
        return found.digest()


def model_hash(model: str) -> bytes:
    """32 bytes that stand for a canonical model id in signed data."""
    return keccak(model.encode())


def request_hash(salt: bytes, operation: Operation, model: str, body: bytes) -> bytes:
    """SHA-256 over a request's salt (16 bytes), operation, model and body: the client signs it; it tells nobody else anything."""
    name = f"{operation} {model}".encode()
    return hashlib.sha256(salt + len(name).to_bytes(2, "big") + name + body).digest()


def quote_of(offer: Offer, model: ModelOffer, payment: Payment | None = None) -> Quote:
    """The quote that a signed offer implies for one of its models; both sides derive it alike, so none is sent.

    `payment`: the one of the offer that is chosen; None: nobody pays, and the prices only tell what it is worth.
    It is valid as long as the offer and bears its number; a new offer makes new quotes, and an executor honours the old ones
    until they expire. An offer names no cached price and no fee: cached input costs as any input. Chain and contract are
    among the terms: the same price in the same token is another quote on another chain.
    """
    terms = msgspec.msgpack.encode([model.context, model.max_output, model.operations, model.features, payment])
    rate = PRICE_UNIT if payment is None else payment.rate
    input_price, output_price = _scaled(model.input_price, rate), _scaled(model.output_price, rate)
    return Quote(
        executor=offer.executor,
        model=model_hash(model.id),
        token=bytes(ADDRESS_BYTES) if payment is None else payment.token,
        input_price=input_price,
        cached_price=input_price,
        output_price=output_price,
        request_fee=0,
        min_window=-(-offer.window * output_price // PRICE_UNIT),
        valid_from=0,
        valid_until=offer.expires,
        tokenizer_hash=keccak(model.encoding.encode()),
        basis=Basis.BACKEND,
        terms_hash=keccak(terms),
        seq=offer.seq,
    )


def quotes_of(offer: Offer, model: ModelOffer) -> list[tuple[Payment | None, Quote]]:
    """All quotes of an offer for one of its models: one for each way to pay; where nothing is to be paid, the one without."""
    free = not offer.payments or not (model.input_price or model.output_price)
    ways: list[Payment | None] = [None] if free else list(offer.payments)
    return [(way, quote_of(offer, model, way)) for way in ways]


def _scaled(price: int, rate: int) -> int:
    return -(-price * rate // PRICE_UNIT)


def quote_hash(quote: Quote) -> bytes:
    """`hashStruct` of the quote: what a request names it by."""
    return QUOTE.hash(QUOTE.encode(msgspec.structs.astuple(quote)))


def cost(quote: Quote, input_tokens: int, cached_tokens: int, output_tokens: int) -> int:
    """What so many tokens cost, in smallest units of the quote's token: rounded up once, for the whole request."""
    by_tokens = (
        input_tokens * quote.input_price + cached_tokens * quote.cached_price + output_tokens * quote.output_price
    )
    return quote.request_fee + -(-by_tokens // PRICE_UNIT)


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
