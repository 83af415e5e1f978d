"""The two ends of flow control: what a peer lets us send, and what we let it send. It never counts anything but bytes of DATA."""

from __future__ import annotations

from typing import final

from lloom.core.bridge.frames import violation


@final
class Credit:
    """What the peer still takes. It can never be more than the window that the peer announced."""

    __slots__ = ("left", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.left = size

    def grant(self, amount: int) -> None:
        """The peer took `amount` bytes out of its window. PeerFault if they were never in it."""
        if not 0 < amount <= self.size - self.left:
            raise violation(f"a WINDOW of {amount} bytes where {self.size - self.left} are on their way")
        self.left += amount


class Window:
    """What we still take. Bytes are held from `take` to `give_back`; new credit goes out once half the window was given back."""

    __slots__ = ("_returned", "left", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.left = size
        self._returned = 0

    @property
    def held(self) -> int:
        """Bytes that arrived and were not yet given back."""
        return self.size - self.left - self._returned

    def take(self, amount: int) -> None:
        """`amount` bytes arrived. PeerFault if that is more than was granted."""
        if amount > self.left:
            raise violation(f"{amount} bytes of DATA where {self.left} were granted")
        self.left -= amount

    def give_back(self, amount: int) -> int:
        """`amount` bytes are no longer held; the credit that is now to be announced, 0 as long as it is not worth a frame."""
        assert 0 <= amount <= self.held, "more was given back than is held"
        self._returned += amount
        if not self._due():
            return 0
        grant, self._returned = self._returned, 0
        self.left += grant
        return grant

    def _due(self) -> bool:
        """Whether enough was given back to be worth a frame."""
        return 2 * self._returned >= self.size


@final
class SharedWindow(Window):
    """That of all streams together. New credit goes out once half of what is not held was given back: what some do not read may
    be more than half of the window, and the others would wait for them."""

    __slots__ = ()

    def _due(self) -> bool:
        return self._returned >= self.left
