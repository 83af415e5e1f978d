"""Answers kept in memory for who lost them on the way: so many bytes in all. It reads no clock."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

BESIDES = 2048
"""Bytes that are kept beside an answer, about: so their number is bounded as well."""


class Copy:
    """All bytes of one answer, as far as it has come; none once `complete` is false."""

    __slots__ = ("complete", "data", "repeats")

    def __init__(self) -> None:
        self.data = bytearray()
        self.complete = True
        """Whether nothing is missing of what was said so far."""
        self.repeats = 0
        """How often it was asked for again."""


class Copies(Generic[T]):
    """At most `limit` bytes, no more than an eighth for one answer. Those that are over are kept for `seconds` by their names,
    each with a `T`; the oldest of them make room. Answers that are still being made never make room for one another.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self.size = 0
        """Bytes that are kept."""
        self.seconds = seconds
        self._limit = limit
        self._kept: OrderedDict[Hashable, tuple[Copy, T, float]] = OrderedDict()
        """In the order in which they end."""

    def __len__(self) -> int:
        return len(self._kept)

    def begin(self) -> Copy:
        """Of an answer that is going to be made; `keep` or `drop` must follow. Nothing is kept where there is no room."""
        copy = Copy()
        self._grow(copy, BESIDES)
        return copy

    def add(self, copy: Copy, data: bytes) -> None:
        """More of an answer."""
        if copy.complete:
            copy.data += data
            self._grow(copy, len(data))

    def keep(self, name: Hashable, copy: Copy, what: T, now: float) -> None:
        """It is over, and kept as long as it is complete; `what` else there is of it. Nothing is kept under its name yet."""
        if copy.complete:
            self._kept[name] = copy, what, now + self.seconds

    def drop(self, copy: Copy) -> None:
        """Nobody is to have it again."""
        if copy.complete:
            copy.complete = False
            self.size -= len(copy.data) + BESIDES
            copy.data = bytearray()

    def find(self, name: Hashable) -> tuple[Copy, T] | None:
        """An answer that is over, and what else there is of it."""
        found = self._kept.get(name)
        return None if found is None else found[:2]

    def forget(self, name: Hashable) -> None:
        """Nobody is to have again what is kept under a name, if anything."""
        if (found := self._kept.pop(name, None)) is not None:
            self.drop(found[0])

    def expire(self, now: float) -> float | None:
        """Forgets what has been kept for long enough at `now`; when the next one has, None if there is none."""
        while self._kept:
            *_, until = next(iter(self._kept.values()))
            if until > now:
                return until
            self._forget_oldest()
        return None

    def clear(self) -> None:
        """Forgets all that are over."""
        while self._kept:
            self._forget_oldest()

    def _grow(self, copy: Copy, size: int) -> None:
        self.size += size
        while self.size > self._limit and self._kept:
            self._forget_oldest()
        if self.size > self._limit or len(copy.data) + BESIDES > self._limit // 8:
            self.drop(copy)

    def _forget_oldest(self) -> None:
        _, (copy, _, _) = self._kept.popitem(last=False)
        self.drop(copy)
