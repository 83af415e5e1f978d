"""What requests have in common whose prompts begin alike: a hash, by which they meet at one cache. It keeps no text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

LEAST: Final = 1024
"""Bytes of a prompt (some 250 tokens) below which computing it anew takes no time to speak of."""
_MOST: Final = 16 * 1024
"""Bytes that are looked at: prompts that are alike for so long are so for longer."""
_SIZE: Final = 16


def named(word: str | bytes) -> bytes:
    """The hash of a caller's own word for what belongs together."""
    return _hash(b"named", word.encode() if isinstance(word, str) else word)


def beginning(texts: Iterable[str]) -> bytes:
    """The hash of a prompt's first texts; empty if they are too short to be worth it."""
    parts, left = [], _MOST
    for text in texts:
        part = text[:left].encode(errors="replace")[:left]
        parts.append(part)
        left -= len(part)
        if not left:
            break
    return _hash(b"text", b"\0".join(parts)) if _MOST - left >= LEAST else b""


def _hash(kind: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_SIZE, person=kind).digest()
