"""What servers answer, read strictly: a server that says something else is as good as silent. It asks nothing.

Every reader raises one of `NONSENSE` for what it cannot read; `Rpc.ask` then asks the next server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from msgspec import Struct

from lloom.core.eip712 import WORD
from lloom.core.payment.events import Block

T = TypeVar("T")

NONSENSE: Final = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
_COUNT_BITS: Final = 53
"""Heights, nonces, times and gas: far more than any chain has, and what is added to them still fits into a journal (63 bits)."""
_AMOUNT_BITS: Final = 128


class Header(Struct, frozen=True):
    """Of a block. `base_fee`: None before EIP-1559."""

    block: Block
    parent: bytes
    base_fee: int | None


class Receipt(Struct, frozen=True):
    """Of a transaction that is part of the chain. `price`: paid for a unit of gas, in smallest units of the coin.

    `l1_fee`: for its bytes besides (OP stack).
    """

    hash: bytes
    block: int
    worked: bool
    gas: int
    price: int
    l1_fee: int


class History(Struct, frozen=True):
    """Base fee of the next block, and tips of some before it."""

    base_fee: int
    tips: Sequence[int]


def count(found: Any) -> int:
    """A quantity that is counted."""
    return _number(found, _COUNT_BITS)


def amount(found: Any) -> int:
    """A quantity of money."""
    return _number(found, _AMOUNT_BITS)


def data(found: Any) -> bytes:
    """Bytes of any length."""
    if found[:2] != "0x":
        raise ValueError("no 0x")
    return bytes.fromhex(found[2:])


def word(found: Any) -> bytes:
    """32 bytes."""
    read = data(found)
    if len(read) != WORD:
        raise ValueError(f"{len(read)} bytes")
    return read


def optional(read: Callable[[Any], T]) -> Callable[[Any], T | None]:
    """Reads what may be null."""
    return lambda found: None if found is None else read(found)


def header(found: Any) -> Header:
    """Of a block that is there."""
    block = Block(count(found["number"]), word(found["hash"]), count(found["timestamp"]))
    return Header(block, word(found["parentHash"]), optional(amount)(found.get("baseFeePerGas")))


def receipt(found: Any) -> Receipt | None:
    """None if the transaction is not mined."""
    if found is None or found.get("blockNumber") is None:
        return None
    return Receipt(
        hash=word(found["transactionHash"]),
        block=count(found["blockNumber"]),
        worked=count(found["status"]) == 1,
        gas=count(found["gasUsed"]),
        price=amount(found.get("effectiveGasPrice", "0x0")),
        l1_fee=amount(found.get("l1Fee") or "0x0"),
    )


def history(found: Any) -> History:
    """Of fees."""
    tips = [amount(rewards[0]) for rewards in found.get("reward") or () if rewards]
    return History(amount(found["baseFeePerGas"][-1]), tips)


def _number(found: Any, bits: int) -> int:
    if found[:2] != "0x":
        raise ValueError("no 0x")
    read = int(found[2:], 16)
    if read < 0 or read >> bits:
        raise ValueError("out of range")
    return read
