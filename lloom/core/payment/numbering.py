"""The numbers and totals on a lane's receipts, as its client sees them come: what does not add up. It accepts and pays nothing.

Receipts come in any order, twice, or not at all. What came without a gap is remembered as one number and one total.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from msgspec import Struct

MAX_REMEMBERED: Final = 1024
"""Receipts whose names are kept to notice two with one number; an executor that lets so many others pass gains nothing by it."""
MAX_BEYOND: Final = 4096
"""Receipts behind a gap. Whoever leaves so large a gap is not believed any more."""

TWICE: Final = "a number that another receipt has"
WRONG_TOTAL: Final = "a lane total that does not add up"
FAR: Final = "a number far ahead of all others"


class _Note(Struct, frozen=True):
    cost: int
    charged: int


class Numbering:
    """`seq`, `charged`: the last receipt before the first gap, and everything charged until then."""

    __slots__ = ("_beyond", "_names", "charged", "seq")

    def __init__(self, seq: int, charged: int) -> None:
        self.seq = seq
        self.charged = charged
        self._beyond: dict[int, _Note] = {}
        self._names: OrderedDict[int, bytes] = OrderedDict()

    @property
    def gap(self) -> bool:
        """Whether a receipt is missing before one that is here."""
        return bool(self._beyond)

    def knows(self, name: bytes, seq: int) -> bool:
        """Whether exactly this receipt came before."""
        return self._names.get(seq) == name

    def note(self, name: bytes, seq: int, cost: int, charged: int) -> str | None:
        """A receipt came; what is wrong with its place on the lane, None if nothing is. `name` is what only this one has."""
        known = self._names.get(seq)
        if known is not None:
            return None if known == name else TWICE
        if seq <= self.seq:  # before our time
            return None
        if len(self._beyond) >= MAX_BEYOND:
            return FAR
        if charged < self.charged + cost or (seq == self.seq + 1 and charged != self.charged + cost):
            return WRONG_TOTAL
        self._remember(seq, name)
        if seq != self.seq + 1:
            self._beyond[seq] = _Note(cost, charged)
            return None
        self.seq, self.charged = seq, charged
        return self._advance()

    def _advance(self) -> str | None:
        """Closes the gap as far as it goes. A total that turns out wrong only now is held against the one that closed it."""
        problem = None
        while (note := self._beyond.pop(self.seq + 1, None)) is not None:
            if note.charged != self.charged + note.cost:
                problem = WRONG_TOTAL
            self.seq, self.charged = self.seq + 1, note.charged
        return problem

    def _remember(self, seq: int, name: bytes) -> None:
        self._names[seq] = name
        if len(self._names) > MAX_REMEMBERED:
            self._names.popitem(last=False)
