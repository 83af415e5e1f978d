"""What whole answers tell beside their tokens: whether they came too fast, or were said before. It keeps no text."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from lloom.core.api.request import ApiRequest
from lloom.core.identity import NodeId
from lloom.core.panel import FASTEST
from lloom.core.prompt import BYTES_PER_TOKEN
from lloom.core.reputation.evidence import Kind
from lloom.core.reputation.repeats import Repeats
from lloom.core.reputation.reputations import Reputations

KEY_BYTES: Final = 32
LONG: Final = 32 * BYTES_PER_TOKEN
"""Bytes of one choice from which its words and its speed tell something: anybody may say "Yes, of course."."""
_MOST: Final = 256 * 1024
"""Bytes of a request that are read for its question, in half a millisecond."""


class Inspection:
    """`key`: random bytes, so that marks of texts tell nothing to whoever sees them."""

    def __init__(self, reputations: Reputations, key: bytes) -> None:
        self._reputations = reputations
        self._repeats = Repeats()
        self._key = key

    def look(self, executor: NodeId, model: str, request: ApiRequest, text: str, seconds: float, now: float) -> None:
        """`model` at `executor` answered `request` with `text` within `seconds`."""
        said = text.encode(errors="replace")
        if len(said) < LONG * request.choices or len(request.body) > _MOST:
            return
        question = _question(request.body)
        if not question:
            return
        rate = len(said) / BYTES_PER_TOKEN / request.choices / max(seconds, 1e-6)
        again = self._repeats.again(executor, model, self._mark(question), self._mark(said))
        self._reputations.note(executor, model, Kind.SPEED, now, right=rate <= FASTEST)
        self._reputations.note(executor, model, Kind.WORDS, now, right=not again)

    def _mark(self, words: bytes) -> bytes:
        return blake2b(words, key=self._key, digest_size=16).digest()


class _Asked(Struct, frozen=True):
    messages: list[Raw] = []
    prompt: Raw = Raw(b"")


_asked = msgspec.json.Decoder(_Asked)


def _question(body: bytes) -> bytes:
    """What is asked, as it stands in the body: of a chat its last message, for who asks the same again may change the rest."""
    try:
        asked = _asked.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return b""
    found: Any = asked.messages[-1] if asked.messages else asked.prompt
    return bytes(found)
