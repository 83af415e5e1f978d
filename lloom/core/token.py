"""Keys to the gateway: what they look like, and what is kept of them. It never keeps one."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

PREFIX: Final = "sk-lloom-"
"""Programs that look for leaked secrets find OpenAI's by `sk-`."""
RANDOM_BYTES: Final = 32


def make(random: bytes) -> str:
    """A new key out of 32 random bytes."""
    assert len(random) == RANDOM_BYTES, "fewer could be guessed"
    return PREFIX + base64.urlsafe_b64encode(random).rstrip(b"=").decode()


def digest(key: bytes) -> bytes:
    """Its SHA-256. It needs no salt and no slowness, since a key cannot be guessed."""
    return hashlib.sha256(key).digest()
