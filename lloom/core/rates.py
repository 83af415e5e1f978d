"""How much a backend may be asked in a minute, and when the next request may go. It knows no clock and waits for nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lloom.core.allowance import Bucket

BURST: Final = 1 / 12
"""The part of a minute's allowance that may be used at once. The rest comes evenly, so no 60 seconds see more than the whole."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the owner of a backend allows: requests at once, and requests and tokens a minute (None: no limit)."""

    parallel: int
    requests: float | None = None
    tokens: float | None = None


class Rates:
    """Requests and tokens of one backend. An estimate is reserved before a request, and settled by what it really took."""

    __slots__ = ("_requests", "_tokens")

    def __init__(self, limits: Limits, share: int, now: float) -> None:
        """`share`: processes that divide `limits` evenly among them, since none knows what the others do."""
        self._requests = _bucket(limits.requests, share, now)
        self._tokens = _bucket(limits.tokens, share, now)

    @property
    def counts_tokens(self) -> bool:
        """Whether an estimate is of any use."""
        return self._tokens is not None

    def wait(self, tokens: int, now: float) -> float:
        """Seconds until one more request of about so many tokens may go (any clock that never goes back)."""
        return max(
            self._requests.wait(1, now) if self._requests else 0.0,
            self._tokens.wait(tokens, now) if self._tokens else 0.0,
        )

    def take(self, tokens: int, now: float, requests: int = 1) -> None:
        """Reserves that, for now or for after `wait`; negative numbers give back."""
        if self._requests:
            self._requests.take(requests, now)
        if self._tokens:
            self._tokens.take(tokens, now)


def _bucket(limit: float | None, share: int, now: float) -> Bucket | None:
    if limit is None:
        return None
    own = limit / share
    return Bucket(own * BURST, own * (1 - BURST), now)
