"""What all messages are made of: bounded types, their base, and how they become bytes."""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from lloom.core.errors import PeerFault

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


_encoder = msgspec.msgpack.Encoder()


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
