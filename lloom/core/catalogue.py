"""All a validator knows of executors: their offers, and what is said of them. It verifies no signature and reads no clock.

What is put in was unsealed by the caller. The newest offer of an executor counts; one without models is a goodbye: it is kept
until it expires, so that gossip spreads it, and shown to nobody. Times are Unix seconds.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from lloom.core.identity import NodeId
from lloom.core.messages import MAX_PAGE, News
from lloom.core.offer import Offer
from lloom.core.records import MAX_LIFETIME, MAX_SKEW
from lloom.core.shares import Shares
from lloom.core.vouch import Vouch

LONGEST_SECONDS: Final = MAX_LIFETIME + MAX_SKEW
"""An offer that wants to hold longer is not taken: as for records, whoever does not renew is gone."""

_VOUCHERS: Final = 16
"""Statements kept of one executor, one for each validator."""
_OVERHEAD: Final = 64
"""Bytes of an entry in an answer beside its sealed parts, at most."""
_ROOM: Final = MAX_PAGE - 4096
_NEWS: Final = 500
"""Offers, and vouches, in one answer to a fellow, at most."""
_PLACE_BYTES: Final = 8192
_PLACE_MODELS: Final = 16
"""An offer takes a place for so many bytes, or models, begun: free identities must not fill the memory with huge ones."""
_TIDY_SECONDS: Final = 1.0
"""In a full catalogue, what has expired is looked for this often: going through all costs some milliseconds."""


@dataclass(slots=True)
class Entry:
    """One executor."""

    offer: Offer
    sealed: bytes
    subnet: str
    version: int = 0
    vouches: dict[NodeId, tuple[Vouch, bytes]] = field(default_factory=dict)
    """By validator: the statement, and the same sealed."""

    @property
    def places(self) -> int:
        """How many of the catalogue's places it takes."""
        return 1 + max((len(self.sealed) - 1) // _PLACE_BYTES, (len(self.offer.models) - 1) // _PLACE_MODELS)

    def living(self, now: float) -> bool:
        return not self.offer.goodbye and self.offer.expires > now

    def vouched(self, now: float) -> bool:
        """Whether a valid statement says that it answers."""
        return any(said.expires > now and said.answers for said, _ in self.vouches.values())

    def statements(self, now: float) -> tuple[bytes, ...]:
        """What is said of it, sealed."""
        return tuple(sealed for said, sealed in self.vouches.values() if said.expires > now)


class Catalogue:
    """At most `limit` executors, fewer if their offers are long. `epoch` tells fellows that versions count anew: a number that no
    earlier run of this node had.

    `order` has all executors, `by_model` those of each model, both sorted by address; `names` all models, sorted.
    """

    def __init__(self, limit: int, epoch: int) -> None:
        self.epoch = epoch
        self.entries: dict[NodeId, Entry] = {}
        self.order: list[NodeId] = []
        self.by_model: dict[str, list[NodeId]] = {}
        self.names: list[str] = []
        self._shares = Shares(limit)
        self._tidied = 0.0
        self._version = 0
        # Who changed when; of each executor the latest change only.
        self._changes: OrderedDict[int, NodeId] = OrderedDict()

    # What comes in

    def put_offer(self, sealed: bytes, offer: Offer, now: float, subnet: str = "") -> bool:
        """True if `offer` is news. `subnet`: where its executor registered from, empty where that is not known."""
        executor = NodeId(offer.executor)
        known = self.entries.get(executor)
        if not now < offer.expires <= now + LONGEST_SECONDS:
            return False
        if known is not None and offer.seq <= known.offer.seq:
            self._moved(executor, known, subnet)
            return False
        entry = Entry(offer, sealed, subnet or (known.subnet if known else ""), vouches=known.vouches if known else {})
        held = known.places if known is not None and known.offer.expires > now else 0
        if entry.places > held and not self._make_room(entry.subnet, entry.places - held, now):
            return False
        if executor in self.entries:
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

    def source(self, executor: NodeId) -> str:
        """The network that `executor` registered from; empty if that is not known."""
        entry = self.entries.get(executor)
        return entry.subnet if entry is not None else ""

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

    def _make_room(self, subnet: str, places: int, now: float) -> bool:
        """Whether somebody from `subnet` may have so many more places. In a full catalogue they are taken where most are, from
        whom nobody vouches for.
        """
        if self._shares.lacks(places) and not 0 <= now - self._tidied < _TIDY_SECONDS:
            self._tidied = now
            self.expire(now)
        victims = self._shares.victims(subnet, places, lambda who: self.entries[who].vouched(now))
        for executor in victims or ():
            self._drop(executor)
        return victims is not None

    def _moved(self, executor: NodeId, entry: Entry, subnet: str) -> None:
        """Its executor was met at `subnet`; so far, perhaps, we only had it from fellows."""
        if subnet and subnet != entry.subnet:
            self._shares.remove(executor, entry.subnet)
            entry.subnet = subnet
            self._shares.add(executor, subnet, entry.places)

    def _list(self, executor: NodeId, entry: Entry) -> None:
        self.entries[executor] = entry
        self._shares.add(executor, entry.subnet, entry.places)
        insort(self.order, executor)
        for model in {model.id for model in entry.offer.models}:
            if model not in self.by_model:
                insort(self.names, model)
            insort(self.by_model.setdefault(model, []), executor)

    def _drop(self, executor: NodeId) -> None:
        entry = self.entries.pop(executor)
        self._changes.pop(entry.version, None)
        self._shares.remove(executor, entry.subnet)
        _remove(self.order, executor)
        for model in {model.id for model in entry.offer.models}:
            _remove(self.by_model[model], executor)
            if not self.by_model[model]:
                del self.by_model[model]
                del self.names[bisect_left(self.names, model)]


def _remove(order: list[NodeId], executor: NodeId) -> None:
    del order[bisect_right(order, executor) - 1]
