"""A client's own count of the answers it pays for, and how much more an executor may charge. It logs no text.

Executors count alike (core/tokens). Where a backend counts with a tokenizer of its own, a share more is accepted.
"""

from __future__ import annotations

import math
from typing import Final

from lloom.core import metering, tokens
from lloom.core.api.request import Operation
from lloom.core.billing.quote import Basis
from lloom.core.prompt import BYTES_PER_TOKEN
from lloom.core.settings import AccountingSettings
from lloom.core.sse import Splitter, payloads

LONG: Final = 8192
"""Characters that are counted in about a millisecond; of a longer piece in the middle of an answer the size is enough."""
USUAL: Final = "o200k_base"
"""What stands in for an encoding that nobody can count with offline."""


def known(encoding: str) -> str:
    """`encoding`, or what stands in for it."""
    return encoding if encoding in tokens.ENCODINGS else USUAL


def accepted(count: int, basis: int, settings: AccountingSettings) -> int:
    """The most tokens that may be charged for `count` of our own."""
    if basis == Basis.TEXT:
        return count
    return math.ceil(count * (1 + settings.tolerance)) + settings.slack


class Tally:
    """The tokens of one answer as they arrive, and of the whole in the end. It keeps the answer, as far as there is room."""

    __slots__ = ("_counted", "_encoding", "_kept", "_operation", "_read", "_splitter", "fed")

    def __init__(self, operation: Operation, encoding: str) -> None:
        self.fed = 0
        """Bytes seen."""
        self._encoding = known(encoding)
        self._operation: Operation = operation
        self._kept = metering.Kept(operation)
        self._splitter: Splitter | None = None  # hardly any answer is counted before its end
        self._read = self._counted = 0

    def feed(self, offset: int, data: bytes) -> None:
        """`data` stands at `offset` of the answer; what was seen before counts once."""
        new = data[max(0, self.fed - offset) :]
        self.fed += len(new)
        self._kept.add(new)

    def so_far(self) -> int:
        """About the tokens of what has arrived. Only what is new since the last call is read, and never much of it counted."""
        fresh = self._kept.since(self._read)
        self._read += len(fresh)
        self._splitter = self._splitter or Splitter(limit=None)
        text = metering.text(self._operation, payloads(self._splitter.block(fresh)))
        self._counted += tokens.count(text, self._encoding) if len(text) <= LONG else len(text) // BYTES_PER_TOKEN
        return self._counted + self._unkept()

    def total(self) -> int:
        """Tokens of all that has arrived, counted as one text."""
        return tokens.count(self._kept.text(self.fed), self._encoding) + self._unkept()

    def forget(self) -> None:
        """Nobody counts it any more: nothing of the answer is kept."""
        self.fed = self._read = self._counted = 0
        self._splitter = None
        self._kept.clear()

    def _unkept(self) -> int:
        return self._kept.unkept(self.fed) // BYTES_PER_TOKEN
