"""How long an executor took to write, however slowly it was read. It never reads a clock."""

from __future__ import annotations


class Pace:
    """Told when the first content came, and for what was awaited after it."""

    __slots__ = ("_awaited", "_first", "_last")

    def __init__(self) -> None:
        self._first = 0.0
        self._last = 0.0
        self._awaited = 0.0

    def began(self, now: float) -> None:
        """The first content is here."""
        self._first = self._last = now

    def waited(self, since: float, until: float) -> None:
        """More came, and was awaited from `since` on."""
        self._awaited += until - since
        self._last = until

    @property
    def seconds(self) -> float:
        """From the first content to the last; 0 if the reader was slower than the executor, so that nobody knows."""
        whole = self._last - self._first
        return whole if self._awaited >= whole / 2 else 0.0
