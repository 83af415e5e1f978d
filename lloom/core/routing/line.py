"""Who waits, and whose turn it is: callers take turns, and each one's requests keep their order. It never reads a clock."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Line(Generic[T]):
    """At most `places` wait. One that finds the line full takes the last place of whoever has more of them than it would."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._callers: OrderedDict[str, OrderedDict[T, Hashable]] = OrderedDict()
        """What each waits with, and of which kind that is."""
        self._kinds: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return self._kinds.total()

    def __iter__(self) -> Iterator[tuple[str, T]]:
        """The first of each kind, in the order in which they would be served; the line must not change meanwhile.

        It goes no further than to the last of these: where all are of one kind, it costs the same however many wait.
        """
        found: set[Hashable] = set()
        for caller, item, kind in self._in_turn():
            if kind not in found:
                yield caller, item
                found.add(kind)
            if len(found) == len(self._kinds):
                return

    def join(self, caller: str, item: T, kind: Hashable) -> T | None:
        """Takes `item` in; what has no place for it: somebody else's, or `item` itself. None if there is room for all."""
        out: T | None = None
        if len(self) >= self._places:
            longest = max(self._callers, key=lambda each: len(self._callers[each]), default=caller)
            if len(self._callers.get(longest, ())) <= len(self._callers.get(caller, ())) + 1:
                return item
            out = next(reversed(self._callers[longest]))
            self.left(longest, out)
        self._callers.setdefault(caller, OrderedDict())[item] = kind
        self._kinds[kind] += 1
        return out

    def served(self, caller: str, item: T) -> None:
        """`item` had its turn: its caller's next one comes after all others'."""
        self.left(caller, item)
        if caller in self._callers:
            self._callers.move_to_end(caller)

    def left(self, caller: str, item: T) -> None:
        """`item` no longer waits; idempotent."""
        waiting = self._callers.get(caller)
        if waiting is None or item not in waiting:
            return
        kind = waiting.pop(item)
        self._kinds[kind] -= 1
        if not self._kinds[kind]:
            del self._kinds[kind]
        if not waiting:
            del self._callers[caller]

    def _in_turn(self) -> Iterator[tuple[str, T, Hashable]]:
        turn: Iterable[tuple[str, Iterator[tuple[T, Hashable]]]] = (
            (caller, iter(waiting.items())) for caller, waiting in self._callers.items()
        )
        while turn:
            later = []
            for caller, items in turn:
                for item, kind in items:
                    yield caller, item, kind
                    later.append((caller, items))
                    break
            turn = later
