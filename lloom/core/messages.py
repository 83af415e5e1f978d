"""The wire vocabulary of the bridge: one frozen type per message, msgpack arrays with a type tag. It never checks signatures.

Who asks a validator gets its answer as one message in DATA, at most `MAX_PAGE` bytes.

Where each stands: HELLO carries `Hello`, WELCOME `Welcome`; OPEN a `Call`; END `Done`; RESET `Refusal`; CANCEL `Cancel`;
GOAWAY `Refusal`; CONTROL (stream 0) a `Control`. DATA is raw bytes: the request's JSON one way, SSE events the other.
"""

from __future__ import annotations

import math
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from lloom.core.errors import CallerFault, PeerFault, RetryElsewhere

VERSION: Final = 1
FROM_EXECUTOR: Final = "x-lloom-backend"
"""HTTP header of an executor's requests to its backends: a gateway that gets one would send it round in a circle."""

MIN_CONTROL: Final = 8192
"""Bytes. Every message fits but a long batch of receipts; no peer may take less, and none may send more before it is welcome."""

Address = Annotated[bytes, Meta(min_length=20, max_length=20)]
Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=65, max_length=65)]
Text = Annotated[str, Meta(max_length=1024)]
Word = Annotated[str, Meta(max_length=64)]
Milliseconds = Annotated[int, Meta(ge=0, le=1 << 53)]
Tokens = Annotated[int, Meta(ge=0, lt=1 << 32)]
Amount = Annotated[int, Meta(ge=1, lt=1 << 32)]
Wei = Annotated[bytes, Meta(min_length=16, max_length=16)]
"""An amount of money, big-endian, as msgpack's integers have 64 bits (`wei`, `amount`)."""
ChainId = Annotated[int, Meta(ge=0, lt=1 << 53)]
LaneNumber = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Sequence = Annotated[int, Meta(ge=0, lt=1 << 53)]

T = TypeVar("T")


class Message(Struct, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True):
    """Base of all: an array whose first element is the name of the type."""


class Limits(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the sender of a HELLO or WELCOME is ready to hold for its peer; the peer keeps within it."""

    streams: Amount
    """Streams that the peer may have open at once."""
    stream_window: Amount
    """Bytes of DATA that the peer may send on one stream before new credit."""
    connection_window: Amount
    """The same over all streams."""
    control_bytes: Annotated[int, Meta(ge=MIN_CONTROL, lt=1 << 32)]
    """Largest payload of any frame but DATA."""


class Hello(Message, frozen=True):
    """The dialler's proof of its address, good for this server and this connection's certificate only (core/hello.py)."""

    version: int
    timestamp: Milliseconds
    address: Address
    limits: Limits
    signature: Signature


class Welcome(Message, frozen=True):
    """The acceptor's answer to a verified HELLO."""

    version: int
    limits: Limits


class Usage(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Everything ever asked of one model on a lane. `model`: keccak of its canonical id."""

    model: Hash
    input_tokens: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    output_tokens: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    requests: Annotated[int, Meta(ge=0, lt=1 << 56)]


class SignedVoucher(Message, frozen=True):
    """Control, from a client: the exact bytes of a voucher (core/payment/voucher.py), and what its usage hash stands for."""

    voucher: Annotated[bytes, Meta(max_length=1024)]
    signature: Signature
    usages: Annotated[tuple[Usage, ...], Meta(max_length=16)] = ()
    """Sorted by model."""
    left_out: Annotated[tuple[Sequence, ...], Meta(max_length=64)] = ()
    """Numbers of receipts that the client does not accept, the latest ones."""


class ChatCall(Message, frozen=True):
    """OPEN: a chat completion. `request` is an encoded, signed `receipt.Request`; the body follows as DATA."""

    request: Annotated[bytes, Meta(max_length=1024)]
    signature: Signature
    salt: Annotated[bytes, Meta(min_length=16, max_length=16)]
    """Mixed into the hashes of request and response, so that a published hash gives nothing away."""
    model: Annotated[str, Meta(min_length=1, max_length=128)]
    chain: ChainId = 0
    """The chain (EIP-155) of the domain that the request is signed in; 0: nobody pays."""
    voucher: SignedVoucher | None = None
    """Covers what the request may cost before its first receipt, as far as earlier ones do not."""


class LaneCall(Message, frozen=True):
    """OPEN: what the executor knows of the caller's lane. Answered by `LaneState`, as DATA."""

    chain: ChainId
    token: Address
    lane: LaneNumber
    since: Sequence = 0
    """Receipts with larger numbers are wanted."""


class OfferCall(Message, frozen=True):
    """OPEN: the executor's own signed offer, whole, as DATA."""


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


Call = (
    ChatCall
    | LaneCall
    | OfferCall
    | RegisterCall
    | CatalogueCall
    | GossipCall
    | ReachCall
    | ReserveCall
    | RelayCall
    | RelayedCall
)


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


class Done(Message, frozen=True):
    """END of an answer: what was counted. Empty for calls that count nothing.

    DATA of a chat carries neither the usage chunk nor `[DONE]`: usage stands here, the gateway writes both as its caller wants.
    """

    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    usage: Annotated[bytes, Meta(max_length=4096)] = b""
    """OpenAI's usage object as JSON, with the details that the backend gave."""


class Refusal(Message, frozen=True):
    """RESET or GOAWAY: why it ends. `status` is the HTTP status it amounts to; `elsewhere`: another executor may succeed."""

    status: Annotated[int, Meta(ge=400, le=599)]
    code: Word
    message: Text
    elsewhere: bool = True
    retry_after: Annotated[float, Meta(ge=0, le=86_400)] | None = None
    param: Word | None = None

    def error(self) -> RetryElsewhere | CallerFault:
        """The exception this refusal amounts to at the dialler."""
        if self.elsewhere:
            return RetryElsewhere(self.message, status=self.status, code=self.code, retry_after=self.retry_after)
        return CallerFault(self.message, status=self.status, code=self.code, param=self.param)

    @classmethod
    def of(cls, error: RetryElsewhere | CallerFault) -> Refusal:
        """The refusal that carries `error` to the dialler; what a backend said out of bounds is brought within them."""
        status = error.status if 400 <= error.status <= 599 else 502
        message = _clean(str(error), 1000)
        if isinstance(error, CallerFault):
            param = None if error.param is None else _clean(error.param, 64)
            return cls(status, _clean(error.code or "invalid_request", 64), message, False, None, param)
        wait = error.retry_after
        if wait is not None:
            wait = min(max(wait, 0.0), 86_400.0) if math.isfinite(wait) else None
        return cls(status, _clean(error.code, 64), message, True, wait)


class Cancel(Message, frozen=True):
    """CANCEL: the dialler lost interest; stop the work. `received` bytes of DATA arrived: that much is billed."""

    received: Annotated[int, Meta(ge=0)]


class SignedReceipt(Message, frozen=True):
    """One receipt: the exact bytes that were signed and journaled."""

    receipt: Annotated[bytes, Meta(max_length=1024)]
    signature: Signature


class Receipts(Message, frozen=True):
    """Control: receipts of finished requests, batched."""

    items: Annotated[list[SignedReceipt], Meta(max_length=256)]


class Need(Message, frozen=True):
    """Control, to a client: running answers go on once its vouchers of this lane reach `cumulative`."""

    chain: ChainId
    token: Address
    lane: LaneNumber
    cumulative: Wei


class LaneState(Message, frozen=True):
    """Answer to `LaneCall`, at most `MAX_PAGE` bytes. A lane nobody knows has zeros and no voucher."""

    charged: Wei
    """Everything ever charged on the lane."""
    seq: Sequence
    """Number of its last receipt."""
    credit_limit: Wei
    """What this client may owe here beyond its vouchers."""
    voucher: SignedVoucher | None
    """The client's own best one: it proves what it promised, even to a client that lost its journal."""
    receipts: Annotated[tuple[SignedReceipt, ...], Meta(max_length=1000)]
    """Those after `since`, in their order, the first of them."""


Control = Receipts | SignedVoucher | Need

_encoder = msgspec.msgpack.Encoder()


def _clean(text: str, length: int) -> str:
    """`text` that UTF-8 can carry (JSON may hold lone surrogates), cut to `length` characters."""
    return text[:length].encode(errors="replace").decode()


def wei(amount: int) -> bytes:
    """`amount` as it travels; OverflowError if it is negative or has more than 128 bits."""
    return amount.to_bytes(16, "big")


def amount(wei: bytes) -> int:
    """The number that `wei` stands for."""
    return int.from_bytes(wei, "big")


def encode(message: Message) -> bytes:
    """`message` as msgpack."""
    return _encoder.encode(message)


def decoder(kind: type[T]) -> msgspec.msgpack.Decoder[T]:
    """A reusable decoder of one message type (or union of them) for `decode`."""
    return msgspec.msgpack.Decoder(kind)


def decode(data: bytes, using: msgspec.msgpack.Decoder[T]) -> T:
    """`data` as a message; PeerFault if it is none of the expected ones."""
    try:
        return using.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerFault(f"a malformed message: {error}", code="bad_message") from error
