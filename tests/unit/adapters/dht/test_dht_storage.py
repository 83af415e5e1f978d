"""What a node holds for others: merged, within quotas, until it expires."""

from __future__ import annotations

import pytest

from lloom.adapters.dht.storage import RecordStore
from lloom.core.errors import PeerFault
from lloom.core.identity import Identity
from lloom.core.records import Key, SignedRecord, Stamp, goodbye, index_key, index_record, sign
from lloom.core.settings import DhtSettings
from tests.integration.dht_support import tuned

KEY = index_key("test", "m")
PEOPLE = sorted((Identity(bytes([number]) * 32) for number in range(1, 21)), key=lambda identity: identity.address)


class Clock:
    """Unix time that stands still until it is set."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def signed(identity: Identity = PEOPLE[0], model: str = "m", seq: int = 1, seconds: int = 600) -> SignedRecord:
    stamp = Stamp(identity.address, seq, int(Clock.now) + seconds)
    return sign(index_record("test", model, stamp), identity, "test")


def store(clock: Clock | None = None, **quotas: int) -> RecordStore:
    settings: DhtSettings = tuned(**quotas)
    return RecordStore("test", settings, clock or Clock())


def test_the_newest_record_of_each_publisher_is_held() -> None:
    held = store()
    old, new, other = signed(seq=1), signed(seq=2), signed(PEOPLE[1])
    assert held.put(old)
    assert held.put(new)
    assert not held.put(old)
    assert held.put(other)
    assert held.records(KEY) == [new, other]
    assert held.count == 2


def test_records_expire() -> None:
    clock = Clock()
    held = store(clock)
    held.put(signed(seconds=10))
    held.put(signed(PEOPLE[1], seconds=20))
    clock.now += 10
    assert len(held.records(KEY)) == 1
    assert held.count == 1
    clock.now += 10
    held.expire()
    assert held.keys() == []
    assert held.count == 0


def test_only_valid_living_records_of_this_key_come_in_from_outside() -> None:
    held = store()
    good = signed()
    for key, raw in [
        (index_key("test", "n"), good.raw),
        (KEY, good.raw[:-1] + bytes([good.raw[-1] ^ 1])),
        (KEY, signed(seconds=0).raw),
        (KEY, b""),
    ]:
        with pytest.raises(PeerFault):
            held[key] = raw
    assert held.count == 0
    held[KEY] = good.raw
    assert held[KEY] == [good.raw]


def test_a_remembered_record_still_expires() -> None:
    clock = Clock()
    held = store(clock)
    held.check(signed(seconds=10).raw)
    clock.now += 10
    with pytest.raises(PeerFault, match="expired"):
        held.check(signed(seconds=10).raw)


@pytest.mark.parametrize(
    ("quota", "more"),
    [
        ("records_per_publisher", signed(model="n")),
        ("records", signed(PEOPLE[1], "n")),
    ],
)
def test_quotas_hold_until_something_expires(quota: str, more: SignedRecord) -> None:
    clock = Clock()
    held = store(clock, **{quota: 1})
    held.put(signed(seconds=10))
    with pytest.raises(PeerFault, match="all the records"):
        held.put(more)
    assert held.put(signed(seq=2, seconds=10)), "what is held may still be replaced"
    clock.now += 10
    held.expire()
    assert held.put(more)


def test_a_full_store_makes_room_by_itself_once_records_expire() -> None:
    clock = Clock()
    held = store(clock, records=1)
    held.put(signed(seconds=10))
    clock.now += 10
    assert held.put(signed(PEOPLE[1], "n"))


def test_pages_fit_their_room_and_go_round_through_all_publishers() -> None:
    held = store()
    everybody = [signed(person) for person in PEOPLE]
    for one in everybody:
        held.put(one)
    size = len(everybody[0].raw) + 3
    first, total = held.page(KEY, bytes(20), 5 * size, 3)
    assert (first, total) == ([one.raw for one in everybody[:5]], 20)
    last, _ = held.page(KEY, PEOPLE[17].address, 5 * size, 3)
    assert last == [one.raw for one in (*everybody[18:], *everybody[:3])]
    whole, _ = held.page(KEY, PEOPLE[19].address, 100 * size, 3)
    assert whole == [one.raw for one in everybody]
    assert held.page(KEY, bytes(20), size - 1, 3) == ([], 20)


def test_a_goodbye_is_held_and_shown_so_that_it_spreads() -> None:
    held = store()
    said = signed()
    farewell = sign(goodbye(said.record, 2, said.record.expiry), PEOPLE[0], "test")
    held.put(said)
    assert held.put(farewell)
    assert held.page(KEY, bytes(20), 1000, 3) == ([farewell.raw], 1)


def test_kademlia_sees_a_storage_that_never_republishes() -> None:
    held = store()
    assert held.get(KEY) is None
    with pytest.raises(KeyError):
        held[Key(bytes(20))]
    held.put(signed())
    assert list(held) == [(KEY, [signed().raw])]
    assert list(held.iter_older_than(0)) == []


CROWD = [Identity(number.to_bytes(32, "big")) for number in range(1000, 1064)]


def fill(held: RecordStore, people: list[Identity], subnet: str) -> int:
    """How many of `people` get a place under KEY, storing from `subnet` themselves."""
    got = 0
    for person in people:
        try:
            held.accept(KEY, signed(person).raw, person.address, subnet)
            got += 1
        except PeerFault:
            continue
    return got


def holders(held: RecordStore) -> set[bytes]:
    return {one.record.publisher for one in held.records(KEY)}


def test_one_subnet_gets_no_more_than_its_share_of_a_key() -> None:
    held = store(records_per_key=64, records_per_subnet=8)
    fill(held, CROWD, "evil")
    assert held.count == 8
    assert fill(held, PEOPLE, "other") >= 8
    assert held.count == 16


def test_free_identities_do_not_shut_out_others() -> None:
    held = store(records_per_key=64, records_per_subnet=64)
    assert fill(held, CROWD, "evil") == 64
    for number, person in enumerate(PEOPLE):
        held.accept(KEY, signed(person).raw, person.address, f"honest {number}")
    assert {person.address for person in PEOPLE} <= holders(held)
    assert held.count == 64


def test_who_is_vouched_for_comes_first_wherever_it_is_from() -> None:
    held = store(records_per_key=16, records_per_subnet=8)
    good = PEOPLE[0].address
    held.vouched = lambda publisher: publisher == good
    fill(held, CROWD[:8], "full")
    for number, person in enumerate(CROWD[8:]):
        fill(held, [person], f"net {number}")
    assert held.count == 16
    assert fill(held, [PEOPLE[0]], "full") == 1
    for number, person in enumerate(CROWD):
        fill(held, [person], f"other net {number}")
    assert good in holders(held)
    assert held.count == 16


def test_who_stays_in_a_full_key_is_drawn_by_every_node_for_itself() -> None:
    kept = set()
    for _ in range(4):
        held = store(records_per_key=8)
        for number, person in enumerate(CROWD):
            fill(held, [person], f"net {number}")
        kept.add(frozenset(holders(held)))
    assert len(kept) > 1


def test_what_others_hand_over_takes_half_a_key_at_most_until_its_publisher_comes() -> None:
    held = store(records_per_key=16, records_per_subnet=8)
    for person in CROWD:
        try:
            held.accept(KEY, signed(person).raw, PEOPLE[0].address, "mallory")
        except PeerFault:
            continue
    assert held.count == 8
    handed = next(person for person in CROWD if person.address in holders(held))
    held.accept(KEY, signed(handed).raw, handed.address, "home")
    assert fill(held, PEOPLE[:8], "elsewhere") == 8
    assert handed.address in holders(held)


def test_whoever_is_ousted_leaves_nothing_behind() -> None:
    clock = Clock()
    held = store(clock, records_per_key=4, records_per_subnet=4)
    for number, person in enumerate(CROWD):
        fill(held, [person], f"net {number % 7}")
    clock.now += 3600
    held.expire()
    assert held.count == 0
    assert not held._subnets
    assert not held._per_publisher
