"""How many requests each client has open at a Worker, and how many it may have. It knows nothing else of them."""

from __future__ import annotations

from collections import Counter

from lloom.adapters.serving.gate import busy


class Crowd:
    """Whoever enters leaves once."""

    def __init__(self, most: int) -> None:
        """`most`: requests of one client."""
        self.open: Counter[bytes] = Counter()
        """By clients; who has none is not in it."""
        self._most = most

    def enter(self, client: bytes) -> None:
        """One more of `client`. RetryElsewhere (429 `busy`) if it has too many."""
        count = self.open[client]
        if count >= self._most:
            raise busy("You have too many requests open at this executor.")
        self.open[client] = count + 1

    def leave(self, client: bytes) -> None:
        """One of `client` is over."""
        self.open[client] -= 1
        if not self.open[client]:
            del self.open[client]
