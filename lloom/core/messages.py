"""The wire vocabulary of the bridge: one frozen type per message, msgpack arrays with a type tag. It never checks signatures.

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


class ChatCall(Message, frozen=True):
    """OPEN: a chat completion. `request` is an encoded, signed `receipt.Request`; the body follows as DATA."""

    request: Annotated[bytes, Meta(max_length=1024)]
    signature: Signature
    salt: Annotated[bytes, Meta(min_length=16, max_length=16)]
    """Mixed into the hashes of request and response, so that a published hash gives nothing away."""
    model: Annotated[str, Meta(min_length=1, max_length=128)]


class OfferCall(Message, frozen=True):
    """OPEN: the executor's own signed offer, whole, as DATA."""


Call = ChatCall | OfferCall


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


Control = Receipts

_encoder = msgspec.msgpack.Encoder()


def _clean(text: str, length: int) -> str:
    """`text` that UTF-8 can carry (JSON may hold lone surrogates), cut to `length` characters."""
    return text[:length].encode(errors="replace").decode()


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
