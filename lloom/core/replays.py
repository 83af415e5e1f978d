"""Answers kept for callers who ask again under the same idempotency key, because they lost the first one. It reads no clock.

As in draft-ietf-httpapi-idempotency-key-header: the same key and request give the same answer, another request is refused.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from lloom.core.errors import CallerFault

T = TypeVar("T")

Key = tuple[str, str, bytes]
"""Whose (the name of the gateway's key), of which endpoint, and what the caller calls it."""


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    digest: bytes
    until: float
    answer: T
    size: int


class Replays(Generic[T]):
    """At most `limit` bytes of answers, each for `seconds`; the oldest make room."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.largest = limit // 8
        """Bytes of an answer that is kept: no single one drives out all others."""
        self._limit = limit
        self._seconds = seconds
        self._made: dict[Key, bytes] = {}
        """Digests of the requests whose answers are being made."""
        self._kept: OrderedDict[Key, _Kept[T]] = OrderedDict()
        """In the order in which they end."""
        self._size = 0

    def begin(self, key: Key, digest: bytes, now: float) -> T | None:
        """The answer to the request with this `digest`; None if it is to be made: `keep` or `forget` must follow.

        CallerFault (409) while it is being made, or if `key` stands for another request.
        """
        self._expire(now)
        found = self._kept.get(key)
        known = self._made.get(key) if found is None else found.digest
        if known is None:
            self._made[key] = digest
            return None
        if known != digest:
            message = "This Idempotency-Key was used for another request; choose a new one for each."
            raise CallerFault(message, status=409, code="idempotency_key_reused")
        if found is None:
            message = "The request with this Idempotency-Key is still being answered; ask again in a moment."
            raise CallerFault(message, status=409, code="idempotency_key_in_use")
        return found.answer

    def keep(self, key: Key, answer: T, size: int, now: float) -> None:
        """The answer that was made, of `size` bytes."""
        self._kept[key] = _Kept(self._made.pop(key), now + self._seconds, answer, size)
        self._size += size
        self._expire(now)

    def forget(self, key: Key) -> None:
        """There is no answer: who asks again is answered anew."""
        del self._made[key]

    def _expire(self, now: float) -> None:
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if oldest.until > now and self._size <= self._limit:
                break
            self._size -= oldest.size
            self._kept.popitem(last=False)
