"""What may be done once only, remembered for as long as somebody could ask for it again. It reads no clock."""

from __future__ import annotations

from heapq import heappop, heappush


class Once:
    """At most `limit` names at a time; more are refused rather than the older forgotten."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._done: dict[bytes, tuple[bytes, int]] = {}
        self._ending: dict[int, list[bytes]] = {}
        """Names by their ends, those that were forgotten included; `_ends` has each end once."""
        self._ends: list[int] = []
        self._kept = 0

    def __len__(self) -> int:
        return len(self._done)

    @property
    def full(self) -> bool:
        """Whether nothing more can be done for now."""
        return self._kept >= self._limit

    def used(self, name: bytes, now: float) -> bytes | None:
        """What `name` was used for, if anybody could still use it at `now`."""
        self._expire(now)
        found = self._done.get(name)
        return None if found is None else found[0]

    def use(self, name: bytes, what: bytes, until: int) -> None:
        """`name` stands for `what` from now on; nobody can use it after `until`. It must be unused, and there must be room."""
        assert name not in self._done
        names = self._ending.get(until)
        if names is None:
            names = self._ending[until] = []
            heappush(self._ends, until)
        names.append(name)
        self._done[name] = what, until
        self._kept += 1

    def forget(self, name: bytes) -> None:
        """It was not done after all. That makes no room before its end: so who asks in vain, again and again, needs no more of it
        than others."""
        self._done.pop(name, None)

    def _expire(self, now: float) -> None:
        while self._ends and self._ends[0] < now:
            until = heappop(self._ends)
            names = self._ending.pop(until)
            self._kept -= len(names)
            for name in names:
                if self._done.get(name, (b"", until))[1] <= until:  # else it was used anew since
                    self._done.pop(name, None)
