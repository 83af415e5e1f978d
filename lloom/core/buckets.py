"""Token buckets, one for each subnet and one for all together, in bounded memory. It never reads a clock."""

from __future__ import annotations

from collections import OrderedDict


class Bucket:
    """Takes `rate` events a second, and as many at once after a pause."""

    __slots__ = ("_left", "_rate", "_then")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._left = rate
        self._then = now

    def holds(self, now: float) -> bool:
        """True if one more event may happen at `now`."""
        if now > self._then:
            self._left = min(self._rate, self._left + (now - self._then) * self._rate)
            self._then = now
        return self._left >= 1

    def take(self) -> None:
        """It happens."""
        self._left -= 1


class Buckets:
    """`rate` events a second for each subnet, `total` for all.

    An event takes from both or from neither. So an attacker that appears to come from everywhere empties the common bucket but
    fills no memory: a bucket unused for a second is full again and is forgotten, and only `2 * total` events fit into a second.
    No debt is ever forgotten before it is paid.
    """

    def __init__(self, rate: float, total: float) -> None:
        self._rate = rate
        self._total = Bucket(total, 0.0)
        self._subnets: OrderedDict[str, tuple[Bucket, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._subnets)

    def take(self, subnet: str, now: float) -> bool:
        """True if an event from `subnet` may happen at `now` (seconds on a monotonic clock), which is then counted."""
        self._forget(now)
        known = self._subnets.get(subnet)
        bucket = Bucket(self._rate, now) if known is None else known[0]
        if not bucket.holds(now) or not self._total.holds(now):
            return False
        bucket.take()
        self._total.take()
        self._subnets[subnet] = bucket, now
        self._subnets.move_to_end(subnet)
        return True

    def _forget(self, now: float) -> None:
        """Drop the buckets that are full again: those from which nothing was taken for a second."""
        while self._subnets:
            subnet = next(iter(self._subnets))
            if now - self._subnets[subnet][1] < 1:
                return
            del self._subnets[subnet]
