"""Fair places in a bounded table: who must go when it is full. It knows names, networks and sizes, nothing of what is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from lloom.core.identity import NodeId


class Shares:
    """At most `limit` places over all networks. Who comes from where few are may take the place of one from where many are."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._held: Counter[str] = Counter()
        # By subnet: its members and their places, who came or renewed first at the front.
        self._members: dict[str, dict[NodeId, int]] = {}

    def add(self, who: NodeId, subnet: str, places: int) -> None:
        """`who` holds `places` now."""
        self._members.setdefault(subnet, {})[who] = places
        self._held[subnet] += places
        self._used += places

    def remove(self, who: NodeId, subnet: str) -> None:
        """`who` holds none any more."""
        members = self._members[subnet]
        places = members.pop(who)
        self._held[subnet] -= places
        self._used -= places
        if not members:
            del self._members[subnet], self._held[subnet]

    def lacks(self, places: int) -> int:
        """How many places are missing for so many more."""
        return max(0, self._used + places - self._limit)

    def victims(self, subnet: str, places: int, spared: Callable[[NodeId], bool]) -> list[NodeId] | None:
        """Who has to go so that somebody from `subnet` gets `places` more. None if those are not for it: nobody goes then.

        Subnets that hold most give first, and none below what the newcomer's own would have.
        """
        missing, least = self.lacks(places), self._held[subnet] + places
        chosen: list[NodeId] = []
        richer = [other for other, held in self._held.items() if held > least] if missing else []
        for other in sorted(richer, key=self._held.__getitem__, reverse=True):
            left = self._held[other]
            for who, held in self._members[other].items():
                if missing <= 0 or left <= least:
                    break
                if not spared(who):
                    chosen.append(who)
                    left -= held
                    missing -= held
        return chosen if missing <= 0 else None
