"""The records this node holds for others: checked, merged, expiring, within quotas. It never sends or invents one."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final

from kademlia.storage import IStorage

from lloom.core import records
from lloom.core.errors import PeerFault
from lloom.core.identity import NodeId
from lloom.core.records import Key, SignedRecord
from lloom.core.settings import DhtSettings

# Records whose signature need not be checked again: what a lookup meets comes from several holders.
MEMO: Final = 4096

# The subnet of records that did not come from their publishers.
HANDED_OVER: Final = ""
NOBODY: Final = NodeId(b"")

Clock = Callable[[], float]


class RecordStore(IStorage):  # type: ignore[misc]
    """Many publishers' records per key. `clock` gives Unix seconds.

    Publishers refresh, holders do not, so `iter_older_than` is empty and nothing lives longer than its publisher wants.
    """

    def __init__(self, network: str, settings: DhtSettings, clock: Clock) -> None:
        self._network = network
        self._settings = settings
        self._clock = clock
        self._held: dict[Key, dict[NodeId, SignedRecord]] = {}
        self._per_publisher: Counter[NodeId] = Counter()
        self._count = 0
        self._checked: OrderedDict[bytes, SignedRecord] = OrderedDict()
        self.vouched: Callable[[NodeId], bool] = lambda publisher: False  # noqa: ARG005
        """Who comes first where there is not room for all."""
        # From where each publisher stored under each key; empty where somebody else handed it over.
        self._subnets: dict[tuple[Key, NodeId], str] = {}
        # Drawn by every node for itself: nobody can find out, or choose, who stays.
        self._salt = secrets.token_bytes(16)

    @property
    def count(self) -> int:
        """How many records are held. (Not `__len__`: `Server` replaces a storage that is false.)"""
        return self._count

    def check(self, raw: bytes) -> SignedRecord:
        """`raw` as a valid record, alive now; PeerFault otherwise. The costly part is remembered."""
        signed = self._checked.get(raw)
        if signed is None:
            signed = self._checked[raw] = records.check(raw, self._network)
            if len(self._checked) > MEMO:
                self._checked.popitem(last=False)
        records.check_time(signed.record, self._clock())
        return signed

    def accept(self, key: Key, raw: bytes, sender: NodeId, subnet: str) -> None:
        """Check and hold `raw`, which `sender` wants stored under `key`, from `subnet`; PeerFault if that is not to be."""
        signed = self.check(raw)
        if signed.record.key != key:
            raise PeerFault("a record under a key that is not its own", code="bad_record")
        self.put(signed, subnet if sender == signed.record.publisher else HANDED_OVER)

    def put(self, signed: SignedRecord, subnet: str = HANDED_OVER) -> bool:
        """Hold `signed`, a checked record. False if something newer is held; PeerFault if a quota is exhausted."""
        key, publisher = Key(signed.record.key), NodeId(signed.record.publisher)
        self._expire(key)
        if publisher not in self._held.get(key, ()):
            self._make_room(key, publisher, subnet)
            self._per_publisher[publisher] += 1
            self._count += 1
        if subnet != HANDED_OVER or (key, publisher) not in self._subnets:
            self._subnets[key, publisher] = subnet
        return records.merge(self._held.setdefault(key, {}), signed)

    def records(self, key: Key) -> list[SignedRecord]:
        """All that is held under `key`, goodbyes included, ordered by publisher."""
        self._expire(key)
        return sorted(self._held.get(key, {}).values(), key=lambda signed: signed.record.publisher)

    def page(self, key: Key, after: bytes, room: int, overhead: int) -> tuple[list[bytes], int]:
        """As many records under `key` as fit `room` bytes (each costs `overhead` more), and how many there are in all.

        The page begins with the first publisher beyond `after` and goes round, so pages asked of several holders add up.
        """
        held = self.records(key)
        beyond = [signed for signed in held if signed.record.publisher > after]
        page: list[bytes] = []
        for signed in beyond + held[: len(held) - len(beyond)]:
            room -= len(signed.raw) + overhead
            if room < 0:
                break
            page.append(signed.raw)
        return page, len(held)

    def keys(self) -> list[Key]:
        """The keys under which something is held, possibly expired."""
        return list(self._held)

    def expire(self) -> None:
        """Forget everything that has expired."""
        for key in self.keys():
            self._expire(key)

    def _make_room(self, key: Key, publisher: NodeId, subnet: str) -> None:
        """PeerFault if `publisher` has no right to one more record under `key`, nor to the place of somebody else."""
        if self._count >= self._settings.records:
            self.expire()
        if self._count >= self._settings.records:
            raise PeerFault("this node holds all the records it can", code="full")
        if self._per_publisher[publisher] >= self._settings.records_per_publisher:
            raise PeerFault("this publisher has all the records it may have here", code="full")
        rivals = self._rivals(key, publisher, subnet)
        if rivals is None:
            return
        worst = min(rivals, key=lambda each: self._rank(key, each, self._subnets[key, each]), default=None)
        if worst is None or self._rank(key, publisher, subnet) <= self._rank(key, worst, self._subnets[key, worst]):
            raise PeerFault("this key has all the records it may have here", code="full")
        self._drop(key, worst)

    def _rivals(self, key: Key, publisher: NodeId, subnet: str) -> list[NodeId] | None:
        """Of whom one must go before `publisher` gets a place under `key`; None if there is room."""
        held = self._held.get(key, {})
        neighbours = [each for each in held if self._subnets[key, each] == subnet]
        if len(neighbours) >= self._allowance(subnet) and not self.vouched(publisher):
            return neighbours
        return list(held) if len(held) >= self._settings.records_per_key else None

    def _allowance(self, subnet: str) -> int:
        """Records under one key from one subnet. What is handed over comes from anywhere, so together it has half the key."""
        return self._settings.records_per_subnet if subnet else self._settings.records_per_key // 2

    def _rank(self, key: Key, publisher: NodeId, subnet: str) -> tuple[bool, int, bytes]:
        """What `publisher` counts for under `key`: vouched for, then from where few are, then by lot."""
        held = self._held.get(key, {})
        crowd = sum(self._subnets[key, each] == subnet for each in held if each != publisher)
        lot = hashlib.blake2b(publisher, key=self._salt, digest_size=8).digest()
        return self.vouched(publisher), -crowd, lot

    def _drop(self, key: Key, publisher: NodeId) -> None:
        del self._held[key][publisher]
        self._subnets.pop((key, publisher), None)
        self._count -= 1
        self._per_publisher[publisher] -= 1
        if not self._per_publisher[publisher]:
            del self._per_publisher[publisher]

    def _expire(self, key: Key) -> None:
        held, now = self._held.get(key, {}), self._clock()
        for publisher in [p for p, signed in held.items() if signed.record.expiry <= now]:
            self._drop(key, publisher)
        if not held:
            self._held.pop(key, None)

    # What kademlia expects of a storage.

    def __setitem__(self, key: Key, raw: bytes) -> None:
        """Check and hold `raw`, which must belong under `key`; PeerFault otherwise."""
        self.accept(key, raw, NOBODY, HANDED_OVER)

    def __getitem__(self, key: Key) -> list[bytes]:
        found = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def get(self, key: Key, default: list[bytes] | None = None) -> list[bytes] | None:
        """The raw records under `key`, `default` if there are none."""
        return [signed.raw for signed in self.records(key)] or default

    def iter_older_than(self, seconds_old: float) -> Iterator[Any]:  # noqa: ARG002
        """Nothing: see the class."""
        return iter(())

    def __iter__(self) -> Iterator[tuple[Key, list[bytes]]]:
        return iter([(key, [signed.raw for signed in self.records(key)]) for key in self.keys()])
