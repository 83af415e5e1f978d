"""All a validator knows of executors: their offers, and what is said of them. It verifies no signature and reads no clock.

What is put in was unsealed by the caller. The newest offer of an executor counts; one without models is a goodbye: it is kept
until it expires, so that gossip spreads it, and shown to nobody. Times are Unix seconds.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Final

from lloom.core.identity import NodeId
from lloom.core.messages import MAX_PAGE, News
from lloom.core.offer import Offer
from lloom.core.vouch import Vouch

_VOUCHERS: Final = 16
"""Statements kept of one executor, one for each validator."""
_OVERHEAD: Final = 64
"""Bytes of an entry in an answer beside its sealed parts, at most."""
_ROOM: Final = MAX_PAGE - 4096
_NEWS: Final = 500
"""Offers, and vouches, in one answer to a fellow, at most."""


@dataclass(slots=True)
class Entry:
    """One executor."""

    offer: Offer
    sealed: bytes
    subnet: str
    version: int = 0
    vouches: dict[NodeId, tuple[Vouch, bytes]] = field(default_factory=dict)
    """By validator: the statement, and the same sealed."""

    def living(self, now: float) -> bool:
        return not self.offer.goodbye and self.offer.expires > now

    def vouched(self, now: float) -> bool:
        """Whether a valid statement says that it answers."""
        return any(said.expires > now and well(said) for said, _ in self.vouches.values())

    def statements(self, now: float) -> tuple[bytes, ...]:
        """What is said of it, sealed."""
        return tuple(sealed for said, sealed in self.vouches.values() if said.expires > now)


class Catalogue:
    """At most `limit` executors. `epoch` tells fellows that versions count anew: a number that no earlier run of this node had.

    `order` has all executors, `by_model` those of each model, both sorted by address.
    """

    def __init__(self, limit: int, epoch: int) -> None:
        self.epoch = epoch
        self.entries: dict[NodeId, Entry] = {}
        self.order: list[NodeId] = []
        self.by_model: dict[str, list[NodeId]] = {}
        self._limit = limit
        self._version = 0
        self._per_subnet: Counter[str] = Counter()
        # Who changed when; of each executor the latest change only.
        self._changes: OrderedDict[int, NodeId] = OrderedDict()

    # What comes in

    def put_offer(self, sealed: bytes, offer: Offer, now: float, subnet: str = "") -> bool:
        """True if `offer` is news. `subnet`: where its executor registered from, empty where that is not known."""
        executor = NodeId(offer.executor)
        known = self.entries.get(executor)
        if offer.expires <= now or (known is not None and offer.seq <= known.offer.seq):
            return False
        if known is None and not self._make_room(subnet, now):
            return False
        entry = Entry(offer, sealed, subnet or (known.subnet if known else ""))
        if known is not None:
            entry.vouches = known.vouches
            self._drop(executor)
        self._list(executor, entry)
        self._changed(executor, entry)
        return True

    def put_vouch(self, sealed: bytes, vouch: Vouch, now: float) -> bool:
        """True if `vouch` is news about an executor that is known. The newest of each validator counts."""
        entry, validator = self.entries.get(NodeId(vouch.executor)), NodeId(vouch.validator)
        if entry is None or vouch.expires <= now:
            return False
        known = entry.vouches.get(validator)
        if known is not None and vouch.issued <= known[0].issued:
            return False
        if known is None and len(entry.vouches) >= _VOUCHERS:
            return False
        entry.vouches[validator] = vouch, sealed
        self._changed(NodeId(vouch.executor), entry)
        return True

    def expire(self, now: float) -> None:
        """Forgets what is over."""
        for executor, entry in list(self.entries.items()):
            if entry.offer.expires <= now:
                self._drop(executor)
            else:
                entry.vouches = {who: kept for who, kept in entry.vouches.items() if kept[0].expires > now}

    # What is known

    def offers(self, now: float) -> list[Offer]:
        """The living offers."""
        return [entry.offer for entry in self.entries.values() if entry.living(now)]

    def vouches(self, executor: NodeId, now: float) -> list[Vouch]:
        """What validators say of `executor`."""
        entry = self.entries.get(executor)
        return [said for said, _ in entry.vouches.values() if said.expires > now] if entry is not None else []

    def vouched(self, executor: NodeId, now: float) -> bool:
        """Whether a valid statement says that `executor` answers."""
        entry = self.entries.get(executor)
        return entry is not None and entry.vouched(now)

    def news(self, epoch: int, version: int, now: float) -> News:
        """What changed since `version`; everything, if that was of another epoch. An executor's vouches come with its offer."""
        since = version if epoch == self.epoch else 0
        offers: list[tuple[NodeId, bytes]] = []
        vouches: list[bytes] = []
        room = _ROOM
        numbers = list(self._changes)
        for number in numbers[bisect_right(numbers, since) :]:
            executor = self._changes[number]
            entry = self.entries[executor]
            said = entry.statements(now)
            room -= len(entry.sealed) + sum(map(len, said)) + _OVERHEAD * (1 + len(said))
            if offers and (room < 0 or len(offers) == _NEWS or len(vouches) + len(said) > _NEWS):
                return News(self.epoch, since, tuple(offers), tuple(vouches), True)
            if entry.offer.expires > now:
                offers.append((executor, entry.sealed))
                vouches += said
            since = number
        return News(self.epoch, self._version, tuple(offers), tuple(vouches), False)

    # Upkeep

    def _changed(self, executor: NodeId, entry: Entry) -> None:
        self._changes.pop(entry.version, None)
        self._version += 1
        entry.version = self._version
        self._changes[self._version] = executor

    def _make_room(self, subnet: str, now: float) -> bool:
        """Whether a newcomer from `subnet` may have a place. In a full catalogue it takes that of somebody who counts for less:
        whoever nobody vouches for, of the subnet that has most, if that has more than the newcomer's own.
        """
        if len(self.entries) >= self._limit:
            self.expire(now)
        if len(self.entries) < self._limit:
            return True
        unvouched = [executor for executor, entry in self.entries.items() if not entry.vouched(now)]
        worst = max(unvouched, key=lambda each: self._per_subnet[self.entries[each].subnet], default=None)
        if worst is None or self._per_subnet[self.entries[worst].subnet] <= self._per_subnet[subnet] + 1:
            return False
        self._drop(worst)
        return True

    def _list(self, executor: NodeId, entry: Entry) -> None:
        self.entries[executor] = entry
        self._per_subnet[entry.subnet] += 1
        insort(self.order, executor)
        for model in {model.id for model in entry.offer.models}:
            insort(self.by_model.setdefault(model, []), executor)

    def _drop(self, executor: NodeId) -> None:
        entry = self.entries.pop(executor)
        self._changes.pop(entry.version, None)
        self._per_subnet[entry.subnet] -= 1
        if not self._per_subnet[entry.subnet]:
            del self._per_subnet[entry.subnet]
        _remove(self.order, executor)
        for model in {model.id for model in entry.offer.models}:
            _remove(self.by_model[model], executor)
            if not self.by_model[model]:
                del self.by_model[model]


def well(said: Vouch) -> bool:
    """Whether a statement is a good one: the executor was reached, and some model answered."""
    return bool(said.reached) and any(probe.answered for probe in said.probes)


def _remove(order: list[NodeId], executor: NodeId) -> None:
    del order[bisect_right(order, executor) - 1]
