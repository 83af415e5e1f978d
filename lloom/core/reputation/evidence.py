"""What a client itself saw of one model at one executor, in sums that fade. It judges nothing and reads no clock.

A sum is worth what its observations are worth at its own time, so adding is commutative and associative (but for rounding):
evidence that is read from the disk late, or heard in another order, gives the same. Times are seconds on any one clock.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Final

from msgspec import Meta, Struct

from lloom.core.routing.estimates import faded


class Kind(Enum):
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
    """Observations, each weighed by its age at `at`."""

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

    @property
    def first_token(self) -> float | None:
        """Mean seconds to the first content; None if none was seen."""
        return self.waited / self.waits if self.waits else None

    @property
    def rate(self) -> float | None:
        """Tokens a second; None if none were seen."""
        return self.tokens / self.seconds if self.seconds else None


def seen(kind: Kind, at: float, *, right: bool) -> Evidence:
    """One observation."""
    one = tuple(float(each is kind) for each in Kind)
    return Evidence(at, right=one) if right else Evidence(at, wrong=one)


def merged(one: Evidence, other: Evidence, memory: float) -> Evidence:
    """Both together, where `memory` seconds halve a weight."""
    at = max(one.at, other.at)
    return _plus(aged(one, at, memory), aged(other, at, memory))


def aged(known: Evidence, now: float, memory: float) -> Evidence:
    """What `known` weighs at `now`, which is not before its time."""
    fade = faded(now - known.at, memory)
    return known if fade == 1.0 and now == known.at else _times(known, fade, now)


def _times(known: Evidence, factor: float, at: float) -> Evidence:
    return Evidence(
        at,
        tuple(factor * each for each in known.right),
        tuple(factor * each for each in known.wrong),
        factor * known.waited,
        factor * known.waits,
        factor * known.tokens,
        factor * known.seconds,
    )


def _plus(one: Evidence, other: Evidence) -> Evidence:
    return Evidence(
        one.at,
        tuple(map(float.__add__, one.right, other.right)),
        tuple(map(float.__add__, one.wrong, other.wrong)),
        one.waited + other.waited,
        one.waits + other.waits,
        one.tokens + other.tokens,
        one.seconds + other.seconds,
    )
