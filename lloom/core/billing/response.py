"""The hash that a receipt has of an answer's bytes. It reads no meaning in them."""

from __future__ import annotations

import hashlib
from collections import deque

from lloom.core.errors import PeerFault


class ResponseHash:
    """SHA-256 over the salt and the DATA bytes of an answer, as they come.

    The last `keep` bytes stay at hand, so that a cancelled answer can be hashed up to the byte its client received:
    the executor keeps a stream's window (no more can be under way), a client keeps nothing.
    """

    __slots__ = ("_hash", "_keep", "_kept", "_tail", "length")

    def __init__(self, salt: bytes, keep: int) -> None:
        self.length = 0
        self._hash = hashlib.sha256(salt)
        self._keep = keep
        self._kept = 0
        self._tail: deque[bytes] = deque()

    def update(self, data: bytes) -> None:
        """Append `data`."""
        self.length += len(data)
        if not self._keep:
            self._hash.update(data)
            return
        self._kept += len(data)
        self._tail.append(data)
        while self._kept - len(self._tail[0]) >= self._keep:
            settled = self._tail.popleft()
            self._kept -= len(settled)
            self._hash.update(settled)

    def digest(self, length: int) -> bytes:
        """The hash of the first `length` bytes; PeerFault if so many were not sent, or so few long since exceeded."""
        missing = length - (self.length - self._kept)
        if not 0 <= missing <= self._kept:
            raise PeerFault(f"{length} bytes received, where {self.length} were sent", code="bad_cancel")
        if not missing:
            return self._hash.digest()
        found = self._hash.copy()
        for data in self._tail:
            found.update(data[:missing])
            missing -= min(missing, len(data))
        return found.digest()
