"""Which answers an executor gave before, to other questions. It knows marks of them only, a few of each, and forgets.

A mark is a keyed hash: it tells nothing of the text, is never logged and never leaves this process.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from lloom.core.identity import NodeId

_LATEST: Final = 8
"""Answers of one model at one executor that a new one is held against."""
_MODELS: Final = 1024
"""Models at executors that are remembered; the one unused for longest makes room. About 2 kB each."""


class Repeats:
    """Marks of the latest answers."""

    def __init__(self) -> None:
        self._latest: OrderedDict[tuple[NodeId, str], deque[tuple[bytes, bytes]]] = OrderedDict()

    def again(self, executor: NodeId, model: str, question: bytes, answer: bytes) -> bool:
        """Whether that model had the same words for another question lately. The answer is remembered."""
        latest = self._latest.setdefault((executor, model), deque(maxlen=_LATEST))
        self._latest.move_to_end((executor, model))
        if len(self._latest) > _MODELS:
            self._latest.popitem(last=False)
        found = any(before != question and said == answer for before, said in latest)
        latest.append((question, answer))
        return found
