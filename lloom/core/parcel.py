"""Many drafts or receipts of one call from actor to actor. They are lists, and pickled as one piece: one by one that takes
several times as long. It changes nothing about them.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import msgspec

from lloom.core.billing.receipt import Draft
from lloom.core.identity import NodeId
from lloom.core.messages import SignedReceipt

T = TypeVar("T")


class Parcel(list[T]):
    """Base of all."""

    encoder: ClassVar[msgspec.json.Encoder | msgspec.msgpack.Encoder] = msgspec.json.Encoder()
    """JSON where there is money, which msgpack has no room for. It makes bytes longer: Ray puts what exceeds 100 kB elsewhere."""
    decoder: ClassVar[msgspec.json.Decoder[Any] | msgspec.msgpack.Decoder[Any]]

    def __reduce__(self) -> tuple[Any, ...]:
        kind = type(self)
        return _opened, (kind, kind.encoder.encode(self))


class Drafts(Parcel[Draft]):
    """What a Worker has receipts made of."""

    decoder = msgspec.json.Decoder(list[Draft])


class Issued(Parcel[SignedReceipt]):
    """Their receipts, in the same order."""

    encoder = msgspec.msgpack.Encoder()
    decoder = msgspec.msgpack.Decoder(list[SignedReceipt])


class Given(Parcel[tuple[NodeId, SignedReceipt]]):
    """Receipts that a client got, and by whom."""

    encoder = msgspec.msgpack.Encoder()
    decoder = msgspec.msgpack.Decoder(list[tuple[NodeId, SignedReceipt]])


def _opened(kind: type[Parcel[Any]], data: bytes) -> Parcel[Any]:
    return kind(kind.decoder.decode(data))
