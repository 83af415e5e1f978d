"""How long each peer waits so that it keeps to its rate, in bounded memory. It never reads a clock and refuses nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable


class Throttle:
    """`rate` units a second for each peer on average, and as many again at once.

    Only who is in debt is remembered, and debts are paid by waiting: so there are never more entries than waiting peers and those
    of the last second.
    """

    __slots__ = ("_paid", "_rate")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._paid: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._paid)

    def take(self, peer: Hashable, amount: float, now: float) -> float:
        """Seconds to wait after `amount` more units of `peer` at `now` (any clock that never goes back); 0 within its rate."""
        self._forget(now)
        paid = max(self._paid.pop(peer, now), now) + amount / self._rate
        self._paid[peer] = paid
        return max(0.0, paid - now - 1)

    def _forget(self, now: float) -> None:
        """Drops those who owe nothing, the longest unused first."""
        while self._paid:
            peer = next(iter(self._paid))
            if self._paid[peer] > now:
                return
            del self._paid[peer]
