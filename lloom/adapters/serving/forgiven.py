"""What clients were not charged though it was sent, because they said it had not arrived. It believes nobody for long."""

from __future__ import annotations

from collections import OrderedDict


class Forgiven:
    """Sums by client; of more than `limit` clients those are forgotten that have cancelled least lately."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sums: OrderedDict[bytes, int] = OrderedDict()

    def add(self, client: bytes, amount: int, most: int) -> bool:
        """Adds `amount`, unless that makes more than `most`."""
        total = self._sums.get(client, 0) + max(0, amount)
        if total > most:
            return False
        self._sums[client] = total
        self._sums.move_to_end(client)
        if len(self._sums) > self._limit:
            self._sums.popitem(last=False)
        return True

    def reduce(self, client: bytes, amount: int) -> None:
        """The client has paid for so much again."""
        if client in self._sums:
            self._sums[client] = max(0, self._sums[client] - amount)
