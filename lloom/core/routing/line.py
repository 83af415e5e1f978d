"""Who waits, and whose turn it is: callers take turns, and each one's requests keep their order. It never reads a clock."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Line(Generic[T]):
    """At most `places` wait. One that finds the line full takes the last place of whoever has more of them than it would."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._callers: OrderedDict[str, list[T]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._callers.values()))

    def __iter__(self) -> Iterator[tuple[str, T]]:
        """All in the order in which they would be served; the line may change meanwhile."""
        lines = [(caller, list(waiting)) for caller, waiting in self._callers.items()]
        for turn in range(max((len(waiting) for _, waiting in lines), default=0)):
            yield from ((caller, waiting[turn]) for caller, waiting in lines if turn < len(waiting))

    def join(self, caller: str, item: T) -> T | None:
        """Takes `item` in; what has no place for it: somebody else's, or `item` itself. None if there is room for all."""
        out: T | None = None
        if len(self) >= self._places:
            longest = max(self._callers, key=lambda each: len(self._callers[each]), default=caller)
            if len(self._callers.get(longest, ())) <= len(self._callers.get(caller, ())) + 1:
                return item
            out = self._callers[longest].pop()
        self._callers.setdefault(caller, []).append(item)
        return out

    def served(self, caller: str, item: T) -> None:
        """`item` had its turn: its caller's next one comes after all others'."""
        self.left(caller, item)
        if caller in self._callers:
            self._callers.move_to_end(caller)

    def left(self, caller: str, item: T) -> None:
        """`item` no longer waits; idempotent."""
        waiting = self._callers.get(caller, [])
        if item in waiting:
            waiting.remove(item)
        if not waiting:
            self._callers.pop(caller, None)
