"""EIP-712 typed data of fixed-size members: type hashes, struct hashes, domains, digests. It holds no keys and knows no message.

A struct travels as its `encodeData` (EIP-712), which is also Solidity's `abi.encode`: one 32-byte word for each member. So the
bytes on the wire are the bytes that are hashed, a value can be written in one way only, and a contract can read them as they are.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from lloom.core.errors import PeerFault
from lloom.core.identity import ADDRESS_BYTES, NodeId, keccak, recover

WORD: Final = 32
NAME: Final = "Lloom"
VERSION: Final = "1"

_CODES: Final = {1: "B", 4: "I", 8: "Q"}
"""What `struct` calls numbers of so many bytes; all others are bytes to it."""

_HALF_ORDER: Final = bytes.fromhex("7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0")
"""Half the order of secp256k1: a larger `s` has a twin below it (EIP-2)."""


def _width(kind: str) -> tuple[bool, int]:
    """Whether a member of this type is a number, and its width in bytes."""
    if kind.startswith("uint"):
        return True, int(kind.removeprefix("uint")) // 8
    return False, {"address": ADDRESS_BYTES, "bytes32": WORD, "string": WORD}[kind]


def _word(member: tuple[bool, int]) -> str:
    """A member's word as `struct` describes it: its padding, then its value."""
    numeric, width = member
    return f"{WORD - width}x{_CODES[width] if numeric and width in _CODES else f'{width}s'}"


class StructType:
    """One struct type, written as its type string: `Mail(address from,bytes32 hash,uint64 time)`.

    Members are `address` (20 bytes), `bytes32`, `uintN` (int), or `string`, whose value here is its 32-byte hash.
    """

    __slots__ = ("_layout", "_wide", "_widths", "members", "size", "type_hash", "type_string")

    def __init__(self, type_string: str) -> None:
        listed = type_string[type_string.index("(") + 1 : -1].split(",")
        kinds, names = zip(*(member.split(" ") for member in listed), strict=True)
        self.type_string = type_string
        self.type_hash = keccak(type_string.encode())
        self.members: tuple[str, ...] = names
        self.size = WORD * len(names)
        self._widths = tuple(map(_width, kinds))
        self._layout = struct.Struct(">" + "".join(map(_word, self._widths)))
        self._wide = tuple(
            (place, width) for place, (numeric, width) in enumerate(self._widths) if numeric and width not in _CODES
        )

    def encode(self, values: Sequence[int | bytes]) -> bytes:
        """The members' words in their order, `size` bytes. ValueError or OverflowError if a value does not fit its member."""
        words: list[Any] = list(values)
        try:
            for place, width in self._wide:
                words[place] = int.to_bytes(words[place], width, "big")
            data = self._layout.pack(*words)
        except (struct.error, IndexError, OverflowError, TypeError):
            self._refuse(values)
        if self._layout.unpack(data) != tuple(words):  # bytes that are too long were cut, short ones filled up
            self._refuse(values)
        return data

    def decode(self, data: bytes) -> tuple[int | bytes, ...]:
        """The members' values; PeerFault unless `data` is exactly what `encode` makes of them."""
        if len(data) != self.size:
            raise PeerFault(f"{len(data)} bytes where {self.size} were expected", code="bad_message")
        words = self._layout.unpack(data)
        if self._layout.pack(*words) != data:
            raise PeerFault("a value that is too large for its member", code="bad_message")
        values = list(words)
        for place, _ in self._wide:
            values[place] = int.from_bytes(values[place], "big")
        return tuple(values)

    def _refuse(self, values: Sequence[int | bytes]) -> NoReturn:
        """Says which of `values` does not fit."""
        for value, (numeric, width), name in zip(values, self._widths, self.members, strict=True):
            if isinstance(value, int) is not numeric:
                raise ValueError(f"{name} is {'a number' if numeric else 'bytes'}, not {type(value).__name__}")
            raw = value.to_bytes(width, "big") if isinstance(value, int) else value
            if len(raw) != width:
                raise ValueError(f"{name} has {width} bytes, not {len(raw)}")
        raise AssertionError("all of them fit")

    def hash(self, encoded: bytes) -> bytes:
        """`hashStruct`: 32 bytes over the type and the encoded members."""
        return keccak(self.type_hash + encoded)


_DOMAIN: Final = StructType("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")


@dataclass(frozen=True, slots=True)
class Domain:
    """Where a signature is good: one contract on one chain. Lloom's name and version stand in every domain.

    `Domain()` is the one where no chain is configured (`chain=off`): no contract will ever accept what is signed in it.
    """

    chain_id: int = 0
    contract: bytes = bytes(ADDRESS_BYTES)
    separator: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        values = (keccak(NAME.encode()), keccak(VERSION.encode()), self.chain_id, self.contract)
        object.__setattr__(self, "separator", _DOMAIN.hash(_DOMAIN.encode(values)))

    def digest(self, struct: StructType, encoded: bytes) -> bytes:
        """The 32 bytes that a signature of the encoded struct covers in this domain."""
        return keccak(b"\x19\x01" + self.separator + struct.hash(encoded))


def signer(digest: bytes, signature: bytes) -> NodeId:
    """Who signed `digest`. PeerFault if it is no signature, or the high-s twin of one: ours have one form, as on chain (EIP-2).

    Tampered data gives another address, no error: the caller compares.
    """
    if signature[WORD : 2 * WORD] > _HALF_ORDER:
        raise PeerFault("a signature with a high s", code="bad_signature")
    return recover(digest, signature)
