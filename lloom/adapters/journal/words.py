"""How money and lanes stand in a journal: as blobs, for SQLite has 63 bits and a sign. They sort as the numbers do."""

from __future__ import annotations

from typing import Final

from lloom.core.billing.lane import Lane

AMOUNT_BYTES: Final = 16


def amount(value: int) -> bytes:
    """16 bytes; OverflowError if that is no uint128."""
    return value.to_bytes(AMOUNT_BYTES, "big")


def number(blob: bytes) -> int:
    """The amount that `blob` stands for."""
    return int.from_bytes(blob, "big")


def signed(value: int) -> int:
    """What SQLite can hold of a uint64: the upper half below zero."""
    return value - (value >> 63 << 64)


def unsigned(value: int) -> int:
    """The uint64 that `value` stands for."""
    return value % (1 << 64)


def lane_key(lane: Lane) -> bytes:
    """48 bytes: client, token, number."""
    return lane.client + lane.token + lane.number.to_bytes(8, "big")
