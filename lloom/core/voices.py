"""What peers say of us: at which address they see us, and how far our clock is off. One voice for each subnet; it asks nobody."""

from __future__ import annotations

import statistics
from collections import Counter, OrderedDict
from typing import Final, TypeVar

T = TypeVar("T")

# Voices listened to; the newest count.
WINDOW: Final = 32
# A liar alone convinces nobody.
QUORUM: Final = 2
# Clocks that differ by no more than this many seconds say the same.
AGREEMENT: Final = 10.0


class Voices:
    """The newest word of each of the latest subnets. `skew`: seconds by which a clock may be off and still serve."""

    def __init__(self, skew: float) -> None:
        self.observed: str | None = None
        """The host that most see us at; None until two say the same, or one where everybody is near."""
        self.clock_offset: float | None = None
        """Seconds by which our clock is behind that of most; None while it serves, or nobody knows."""
        self._skew = skew
        self._hosts: OrderedDict[str, str] = OrderedDict()
        self._offsets: OrderedDict[str, float] = OrderedDict()

    @property
    def clocks(self) -> tuple[float, ...]:
        """By how many seconds each is ahead of our clock, whether or not they agree."""
        return tuple(self._offsets.values())

    def hear_host(self, subnet: str, host: str, *, near: bool) -> None:
        """Somebody in `subnet` sees us at `host`. `near`: it is a neighbour whose word is enough."""
        _put(self._hosts, subnet, host)
        most, count = Counter(self._hosts.values()).most_common(1)[0]
        if count >= QUORUM or near:
            self.observed = most

    def hear_clock(self, subnet: str, offset: float) -> None:
        """The clock of somebody in `subnet` is ahead of ours by `offset` seconds."""
        _put(self._offsets, subnet, offset)
        middle = statistics.median(self._offsets.values())
        agreed = sum(abs(offset - middle) <= AGREEMENT for offset in self._offsets.values())
        self.clock_offset = middle if abs(middle) > self._skew and agreed >= QUORUM else None


def _put(voices: OrderedDict[str, T], subnet: str, word: T) -> None:
    voices[subnet] = word
    voices.move_to_end(subnet)
    if len(voices) > WINDOW:
        voices.popitem(last=False)
