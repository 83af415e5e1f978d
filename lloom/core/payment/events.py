"""What the contract tells: one frozen type per event, read from a log's words. It fetches nothing and believes nothing.

All members are one word each, so a log is read without a codec. `token`: zeros for the chain's own coin.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from msgspec import Struct

from lloom.core.eip712 import WORD
from lloom.core.identity import ADDRESS_BYTES, keccak


class Event(Struct, frozen=True):
    """Base of all."""


class Deposited(Event, frozen=True):
    client: bytes
    token: bytes
    payer: bytes
    amount: int


class ThawStarted(Event, frozen=True):
    client: bytes
    token: bytes
    amount: int
    thawed_at: int


class ThawCancelled(Event, frozen=True):
    client: bytes
    token: bytes


class Withdrawn(Event, frozen=True):
    client: bytes
    token: bytes
    payee: bytes
    amount: int


class SignerAuthorized(Event, frozen=True):
    client: bytes
    signer: bytes
    valid_until: int
    flags: int


class SignerRevoked(Event, frozen=True):
    client: bytes
    signer: bytes
    effective_at: int


class Reserved(Event, frozen=True):
    client: bytes
    executor: bytes
    token: bytes
    lane: int
    amount: int
    reserved: int


class ReleaseStarted(Event, frozen=True):
    client: bytes
    executor: bytes
    token: bytes
    lane: int
    released_at: int


class Released(Event, frozen=True):
    client: bytes
    executor: bytes
    token: bytes
    lane: int
    amount: int


class Refunded(Event, frozen=True):
    executor: bytes
    client: bytes
    token: bytes
    amount: int


class Settled(Event, frozen=True):
    """`target`: what was asked for on the lane in all; `claimed`: paid of it so far; `paid`: now."""

    client: bytes
    executor: bytes
    token: bytes
    lane: int
    target: int
    claimed: int
    paid: int


class ModelUsed(Event, frozen=True):
    """Totals of a lane: whoever reads them keeps the largest."""

    client: bytes
    executor: bytes
    model: bytes
    token: bytes
    lane: int
    input_tokens: int
    output_tokens: int
    requests: int


class Reason(IntEnum):
    """Why a claim, or its usage, had no effect."""

    STALE = 0
    SIGNATURE = 1
    FUNDS = 2
    USAGE = 3


class Skipped(Event, frozen=True):
    """Anybody can send a bad claim in anybody's name: it says nothing about the client. `reason`: a `Reason`."""

    client: bytes
    executor: bytes
    token: bytes
    lane: int
    reason: int


class EarningsWithdrawn(Event, frozen=True):
    executor: bytes
    token: bytes
    payee: bytes
    amount: int


class Block(Struct, frozen=True):
    """A block by number and hash. `time`: Unix seconds by the chain's clock; of an event's block perhaps reckoned, not told."""

    number: int
    hash: bytes
    time: int


class Seen(Struct, frozen=True):
    """An event and where it stands. It is told when it is first seen, again when it is final, and with `removed` if its block
    is not part of the chain any more. The same may be told twice."""

    event: Event
    block: Block
    transaction: bytes
    index: int
    """Of the log within its block."""
    final: bool
    removed: bool


_SIGNATURES: Final[dict[type[Event], str]] = {
    Deposited: "address,address,address,uint256",
    ThawStarted: "address,address,uint256,uint256",
    ThawCancelled: "address,address",
    Withdrawn: "address,address,address,uint256",
    SignerAuthorized: "address,address,uint40,uint8",
    SignerRevoked: "address,address,uint256",
    Reserved: "address,address,address,uint64,uint256,uint256",
    ReleaseStarted: "address,address,address,uint64,uint256",
    Released: "address,address,address,uint64,uint256",
    Refunded: "address,address,address,uint256",
    Settled: "address,address,address,uint64,uint128,uint128,uint256",
    ModelUsed: "address,address,bytes32,address,uint64,uint80,uint80,uint56",
    Skipped: "address,address,address,uint64,uint8",
    EarningsWithdrawn: "address,address,address,uint256",
}


def signature(kind: type[Event]) -> str:
    """As Solidity writes it: `Deposited(address,address,address,uint256)`."""
    return f"{kind.__name__}({_SIGNATURES[kind]})"


TOPICS: Final = {keccak(signature(kind).encode()): kind for kind in _SIGNATURES}
"""The first topic of a log → its type."""


def decode(topics: Sequence[bytes], data: bytes) -> Event | None:
    """The event of a log; None if it is none of ours. ValueError if it claims to be one and is not."""
    kind = TOPICS.get(topics[0]) if topics else None
    if kind is None:
        return None
    words = [*topics[1:], *(data[start : start + WORD] for start in range(0, len(data), WORD))]
    types = _SIGNATURES[kind].split(",")
    if len(words) != len(types) or not all(map(_fits, words, types)):
        raise ValueError(f"a log that is no {signature(kind)}")
    return kind(*map(_value, words, types))


def _fits(word: bytes, kind: str) -> bool:
    """Whether the contract can have said it. A server can say anything, and journals have room for no more than the type has."""
    return len(word) == WORD and not any(word[: WORD - _width(kind)])


def _width(kind: str) -> int:
    if kind.startswith("uint"):
        return int(kind.removeprefix("uint")) // 8
    return ADDRESS_BYTES if kind == "address" else WORD


def _value(word: bytes, kind: str) -> bytes | int:
    return int.from_bytes(word, "big") if kind.startswith("uint") else word[WORD - _width(kind) :]
