"""Many drafts or receipts of one call from actor to actor. They are lists, and pickled as one piece: one by one that takes
several times as long. It changes nothing about them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from lloom.core.messages import SignedReceipt
from lloom.core.receipt import Draft


class Drafts(list[Draft]):
    """What a Worker has receipts made of."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _drafts, (msgspec.json.encode(self),)  # msgpack's integers are too short for what they cost


class Issued(list[SignedReceipt]):
    """Their receipts, in the same order."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _issued, (msgspec.msgpack.encode(self),)


_draft_decoder: Final = msgspec.json.Decoder(list[Draft])
_receipt_decoder: Final = msgspec.msgpack.Decoder(list[SignedReceipt])


def _drafts(data: bytes) -> Drafts:
    return Drafts(_draft_decoder.decode(data))


def _issued(data: bytes) -> Issued:
    return Issued(_receipt_decoder.decode(data))
