"""What a client itself saw of one model at one executor, in sums that fade, as it is kept. `tally` adds it up."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from msgspec import Meta, Struct


class Kind(IntEnum):
    """What an executor is observed in. The value is its place among the sums, so it stays; names are used in figures."""

    ANSWER = 0
    """Its answers come to their end."""
    COUNT = 1
    """It claims no more tokens than were counted here, and what tokenizers differ by."""
    RECEIPT = 2
    """Its receipts are true to the order and to what arrived."""
    PRICE = 3
    """It keeps its quotes as long as they hold."""
    SPEED = 4
    """It takes as long as computing takes."""
    WORDS = 5
    """It has other words for another question."""


Sum = Annotated[float, Meta(ge=0, le=1e15)]
Sums = Annotated[tuple[Sum, ...], Meta(min_length=len(Kind), max_length=len(Kind))]
NONE: Final = (0.0,) * len(Kind)


class Evidence(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Observations, each weighed by its age at `at` (seconds on any one clock)."""

    at: Annotated[float, Meta(ge=-1e12, le=1e12)]
    right: Sums = NONE
    """By `Kind`: how often it was as it should be,"""
    wrong: Sums = NONE
    """and how often not."""
    waited: Sum = 0.0
    """Seconds to the first content, summed up over"""
    waits: Sum = 0.0
    """so many answers."""
    tokens: Sum = 0.0
    """Written in"""
    seconds: Sum = 0.0
    """so many seconds after the first content."""
