"""Answers kept for callers who ask again under the same idempotency key, because they lost the first one. It reads no clock.

As in draft-ietf-httpapi-idempotency-key-header: the same key and request give the same answer, another request is refused.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from lloom.core.copies import Copies, Copy
from lloom.core.errors import CallerFault

T = TypeVar("T")

Key = tuple[str, str, bytes]
"""Whose (the name of the gateway's key), of which endpoint, and what the caller calls it."""


class Replays(Generic[T]):
    """Of each answer there is a copy in `copies`, which begins when it is begun, and a `T` once it is over."""

    def __init__(self, limit: int, seconds: float) -> None:
        """As for `Copies`."""
        self.copies: Copies[tuple[bytes, T]] = Copies(limit, seconds)
        self._made: dict[Key, bytes] = {}
        """Digests of the requests whose answers are being made."""

    def begin(self, key: Key, digest: bytes, now: float) -> tuple[Copy, T] | None:
        """The answer to the request with this `digest`; None if it is to be made: `keep` or `forget` must follow.

        CallerFault (409) while it is being made, or if `key` stands for another request.
        """
        self.copies.expire(now)
        found = self.copies.find(key)
        known = self._made.get(key) if found is None else found[1][0]
        if known is None:
            self._made[key] = digest
            return None
        if known != digest:
            message = "This Idempotency-Key was used for another request; choose a new one for each."
            raise CallerFault(message, status=409, code="idempotency_key_reused")
        if found is None:
            message = "The request with this Idempotency-Key is still being answered; ask again in a moment."
            raise CallerFault(message, status=409, code="idempotency_key_in_use")
        copy, (_, what) = found
        return copy, what

    def keep(self, key: Key, copy: Copy, what: T, now: float) -> None:
        """The answer that was made, and `what` else there is of it."""
        self.copies.keep(key, copy, (self._made.pop(key), what), now)

    def forget(self, key: Key, copy: Copy) -> None:
        """There is no answer: who asks again is answered anew."""
        self.copies.drop(copy)
        del self._made[key]
