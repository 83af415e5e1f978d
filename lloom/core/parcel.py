"""Many drafts, receipts or judgements of one call from actor to actor. They are lists, and pickled as one piece: one by one
that takes several times as long. It changes nothing about them. What exceeds 100 kB, Ray does not send along with a call.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import msgspec
from msgspec.structs import astuple

from lloom.core.billing.receipt import Draft
from lloom.core.identity import NodeId
from lloom.core.messages import SignedReceipt
from lloom.core.payment.payable import Judged

T = TypeVar("T")


class Parcel(list[T]):
    """Base of those that are encoded."""

    encoder: ClassVar[msgspec.json.Encoder | msgspec.msgpack.Encoder] = msgspec.json.Encoder()
    """JSON where there is money, which msgpack has no room for. It makes bytes longer."""
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


class Judgements(list[Judged]):
    """Receipts that a client pays, or does not: as rows, for what a lane was charged is too large for msgpack, and as JSON
    a batch of them exceeds 100 kB.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        rows = [(executor, number, *astuple(signed), *rest) for executor, number, signed, *rest in map(astuple, self)]
        return _judged, (rows,)


def _opened(kind: type[Parcel[Any]], data: bytes) -> Parcel[Any]:
    return kind(kind.decoder.decode(data))


def _judged(rows: list[tuple[Any, ...]]) -> Judgements:
    return Judgements(
        [
            Judged(executor, number, SignedReceipt(receipt, signature), *rest)
            for executor, number, receipt, signature, *rest in rows
        ]
    )
