"""What this node learns of itself from the answers of others: its address and its clock. It never asks."""

from __future__ import annotations

from collections.abc import Callable

from loguru import logger

from lloom.adapters.dht.addresses import is_public, subnet
from lloom.adapters.dht.wire import Sender
from lloom.core.voices import Voices

Address = tuple[str, int]


class Mirror:
    """One node as its peers see it. `bound` tells where its sockets are, `skew` by how many seconds a clock may be off."""

    def __init__(self, skew: float, bound: Callable[[], frozenset[Address]]) -> None:
        self._voices = Voices(skew)
        self._bound = bound
        self._found: set[Address] = set()

    @property
    def observed(self) -> str | None:
        """The host at which most peers see us; None until enough of them say so."""
        return self._voices.observed

    @property
    def clock_offset(self) -> float | None:
        """Seconds by which our clock is behind the network's; None while it serves, or nobody knows."""
        return self._voices.clock_offset

    @property
    def clocks(self) -> tuple[float, ...]:
        """By how many seconds each clock we heard of is ahead of ours."""
        return self._voices.clocks

    def hear_host(self, sender: Sender, host: str) -> None:
        """`sender` sees us at `host`."""
        self._voices.hear_host(subnet(sender.host, sender.port), host, near=not is_public(sender.host))

    def hear_clock(self, sender: Sender, ahead: float) -> None:
        """The clock of `sender` is ahead of ours by so many seconds. Warns once when most clocks say that ours is off."""
        before = self.clock_offset
        self._voices.hear_clock(subnet(sender.host, sender.port), ahead)
        if before is None and (offset := self.clock_offset) is not None:
            logger.warning(
                "This machine's clock is about {:.0f} s {} that of the network: other nodes will refuse it; "
                "set it right (NTP)",
                abs(offset),
                "behind" if offset > 0 else "ahead of",
            )

    def found_at(self, host: str, port: int) -> None:
        """Whoever was greeted there was ourselves."""
        self._found.add((host, port))

    def shows(self, host: str, port: int) -> bool:
        """True if that is this very node, as far as it knows its addresses."""
        bound = self._bound()
        at_own_port = any(port == own for _, own in bound)
        return (host, port) in bound or (host, port) in self._found or (host == self.observed and at_own_port)
