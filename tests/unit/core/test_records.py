"""Records: what is signed comes back, what is not exactly as it was signed does not."""

from __future__ import annotations

import ipaddress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.errors import PeerFault
from lloom.core.identity import Identity, NodeId
from lloom.core.offer import Endpoint
from lloom.core.records import (
    ALL,
    MAX_BODY,
    MAX_ENDPOINTS,
    MAX_LIFETIME,
    MAX_RECORD,
    MAX_SKEW,
    Kind,
    OfferBody,
    Record,
    SignedRecord,
    Stamp,
    check,
    check_time,
    goodbye,
    index_body,
    index_key,
    index_record,
    living,
    merge,
    newer,
    offer_body,
    offer_key,
    offer_record,
    renewed,
    sign,
)

NETWORK = "test"
ALICE, BOB = Identity(b"\1" * 32), Identity(b"\2" * 32)

models = st.one_of(st.just(ALL), st.from_regex(r"[a-z0-9][a-z0-9._:/@+-]{0,127}", fullmatch=True))
endpoints = st.builds(Endpoint, st.ip_addresses().map(str), st.integers(1, 65_535))
bodies = st.builds(
    OfferBody, st.lists(endpoints, max_size=MAX_ENDPOINTS).map(tuple), st.binary(min_size=32, max_size=32)
)
stamps = st.builds(Stamp, st.just(ALICE.address), st.integers(0, 2**63 - 1), st.integers(0, 2**53 - 1))


def stamp(seq: int = 1, expiry: int = 1000) -> Stamp:
    return Stamp(ALICE.address, seq, expiry)


def resigned(record: Record, network: str = NETWORK, **changes: object) -> bytes:
    """The bytes of `record` with `changes`, properly signed by Alice all the same."""
    payload = msgspec.msgpack.encode(msgspec.structs.replace(record, **changes))
    return payload + ALICE.sign("record", network, payload)


@given(models, stamps, st.integers(0, 255))
def test_an_index_record_comes_back_as_it_was_signed(model: str, stamp: Stamp, shard: int) -> None:
    record = index_record(NETWORK, model, stamp, shard)
    checked = check(sign(record, ALICE, NETWORK).raw, NETWORK)
    assert checked.record == record
    assert (index_body(checked.record).model, index_body(checked.record).shard) == (model, shard)
    assert checked.record.key == index_key(NETWORK, model, shard)


@given(bodies, stamps)
def test_an_offer_record_comes_back_as_it_was_signed(body: OfferBody, stamp: Stamp) -> None:
    checked = check(sign(offer_record(NETWORK, body, stamp), ALICE, NETWORK).raw, NETWORK)
    assert offer_body(checked.record) == body
    assert checked.record.key == offer_key(NETWORK, ALICE.address)


@given(st.binary(max_size=2 * MAX_RECORD))
def test_whatever_arrives_is_a_record_or_the_peers_fault(raw: bytes) -> None:
    with pytest.raises(PeerFault):
        check(raw, NETWORK)


@given(st.integers(0), st.integers(1, 255))
def test_no_byte_of_a_record_can_be_changed(position: int, difference: int) -> None:
    raw = bytearray(sign(index_record(NETWORK, "m", stamp()), ALICE, NETWORK).raw)
    raw[position % len(raw)] ^= difference
    with pytest.raises(PeerFault):
        check(bytes(raw), NETWORK)


@given(st.integers(0))
def test_no_record_can_be_cut_short(length: int) -> None:
    raw = sign(index_record(NETWORK, "m", stamp()), ALICE, NETWORK).raw
    with pytest.raises(PeerFault):
        check(raw[: length % len(raw)], NETWORK)


def test_the_largest_records_keep_to_the_limit() -> None:
    last = Stamp(ALICE.address, 2**63 - 1, 2**53 - 1)
    longest = index_record(NETWORK, "m" * 128, last)
    v6 = Endpoint(str(ipaddress.IPv6Address(2**128 - 1)), 65_535)
    widest = offer_record(NETWORK, OfferBody((v6,) * (MAX_ENDPOINTS + 3), bytes(32)), last)
    assert len(offer_body(widest).endpoints) == MAX_ENDPOINTS
    for record in (longest, widest):
        assert len(record.body) <= MAX_BODY
        assert check(sign(record, ALICE, NETWORK).raw, NETWORK).record == record
    full = msgspec.structs.replace(longest, body=bytes(MAX_BODY))
    assert len(sign(full, ALICE, NETWORK).raw) <= MAX_RECORD


def test_a_record_of_another_network_does_not_count() -> None:
    raw = sign(index_record("other", "m", stamp()), ALICE, "other").raw
    with pytest.raises(PeerFault, match="key"):
        check(raw, NETWORK)
    with pytest.raises(PeerFault, match="sign"):
        check(resigned(index_record(NETWORK, "m", stamp()), network="other"), NETWORK)


def test_nobody_speaks_for_somebody_else() -> None:
    for_bob = index_record(NETWORK, "m", Stamp(BOB.address, 1, 1000))
    with pytest.raises(PeerFault, match="did not sign"):
        check(sign(for_bob, ALICE, NETWORK).raw, NETWORK)


def test_nobody_writes_under_a_key_that_is_not_his() -> None:
    body = OfferBody((), bytes(32))
    mine = offer_record(NETWORK, body, stamp())
    with pytest.raises(PeerFault, match="key"):
        check(resigned(mine, key=offer_key(NETWORK, BOB.address)), NETWORK)
    with pytest.raises(PeerFault, match="key"):
        check(resigned(goodbye(mine, 2, 1000), key=offer_key(NETWORK, BOB.address)), NETWORK)
    with pytest.raises(PeerFault, match="key"):
        check(resigned(index_record(NETWORK, "m", stamp()), key=index_key(NETWORK, "n")), NETWORK)


@pytest.mark.parametrize(
    "body",
    [
        b"\x00",
        b"\x92\xa1M\x00",
        b"\x92\xa0\x00",
        b"\x92\xa1m\xcc\x00",
        b"\x93\xa1m\x00\x00",
        b"\x92\xa1m\xcd\x01\x00",
        b"\x92\xa1\xff\x00",
    ],
    ids=[
        "no array",
        "capital letter",
        "empty model",
        "overlong integer",
        "too many fields",
        "no such shard",
        "no UTF-8",
    ],
)
def test_a_malformed_index_body_is_refused(body: bytes) -> None:
    with pytest.raises(PeerFault):
        check(resigned(index_record(NETWORK, "m", stamp()), body=body), NETWORK)


@pytest.mark.parametrize(
    "body",
    [
        [[[b"12345", 1]], bytes(32)],
        [[["127.0.0.1", 1]], bytes(32)],
        [[[b"1234", 0]], bytes(32)],
        [[[b"1234", 65_536]], bytes(32)],
        [[[b"1234", 1]] * (MAX_ENDPOINTS + 1), bytes(32)],
        [[], bytes(31)],
    ],
    ids=["5-byte address", "text address", "port 0", "port 65536", "too many endpoints", "short fingerprint"],
)
def test_a_malformed_offer_body_is_refused(body: object) -> None:
    record = offer_record(NETWORK, OfferBody((), bytes(32)), stamp())
    with pytest.raises(PeerFault):
        check(resigned(record, body=msgspec.msgpack.encode(body)), NETWORK)


def test_a_host_that_is_no_literal_address_cannot_be_announced() -> None:
    with pytest.raises(ValueError, match=r"example\.org"):
        offer_record(NETWORK, OfferBody((Endpoint("example.org", 1),), bytes(32)), stamp())


def test_another_encoding_of_the_same_record_is_refused() -> None:
    record = index_record(NETWORK, "m", stamp(seq=1))
    payload = msgspec.msgpack.encode(record)
    # seq 1 as a 16-bit integer instead of a single byte.
    longer = payload.replace(record.publisher + b"\x01", record.publisher + b"\xcd\x00\x01")
    assert msgspec.msgpack.decode(longer, type=Record) == record
    with pytest.raises(PeerFault, match="canonical"):
        check(longer + ALICE.sign("record", NETWORK, longer), NETWORK)


@pytest.mark.parametrize(("changes", "fine"), [({}, True), ({"version": 2}, False), ({"kind": 3}, False)])
def test_only_known_versions_and_kinds_count(changes: dict[str, object], fine: bool) -> None:
    raw = resigned(index_record(NETWORK, "m", stamp()), **changes)
    if fine:
        assert check(raw, NETWORK).record.kind is Kind.INDEX
    else:
        with pytest.raises(PeerFault):
            check(raw, NETWORK)


def test_a_record_counts_until_it_expires_and_not_if_it_wants_to_live_too_long() -> None:
    record = index_record(NETWORK, "m", stamp(expiry=10_000))
    check_time(record, 9_999.9)
    check_time(record, 10_000 - MAX_LIFETIME - MAX_SKEW)
    for now in (10_000, 10_000 - MAX_LIFETIME - MAX_SKEW - 1):
        with pytest.raises(PeerFault):
            check_time(record, now)


def test_keys_differ_by_network_kind_model_and_shard() -> None:
    address = NodeId(b"m" * 20)
    keys = {
        index_key("a", "m"),
        index_key("b", "m"),
        index_key("a", "n"),
        index_key("a", "m", 1),
        index_key("am", ""),
        offer_key("a", address),
        offer_key("b", address),
        index_key("a", address.decode()),
    }
    assert len(keys) == 8
    assert {len(key) for key in keys} == {20}


def test_a_goodbye_replaces_what_it_takes_back_and_a_new_announcement_the_goodbye() -> None:
    said = index_record(NETWORK, "m", stamp(seq=1, expiry=1000))
    held: dict[NodeId, SignedRecord] = {}
    assert merge(held, sign(said, ALICE, NETWORK))
    assert merge(held, sign(goodbye(said, 2, 900), ALICE, NETWORK))
    assert living(held.values()) == []
    assert not merge(held, sign(renewed(said, 2000), ALICE, NETWORK))
    assert merge(held, sign(index_record(NETWORK, "m", stamp(seq=3)), ALICE, NETWORK))
    assert len(living(held.values())) == 1


@given(st.permutations([(1, 10), (1, 20), (2, 5), (2, 15), (3, 1)]))
def test_the_newest_wins_in_whatever_order_records_arrive(order: list[tuple[int, int]]) -> None:
    held: dict[NodeId, SignedRecord] = {}
    for seq, expiry in order:
        record = index_record(NETWORK, "m", stamp(seq, expiry))
        merge(held, SignedRecord(record, b""))
        merge(held, SignedRecord(msgspec.structs.replace(record, publisher=BOB.address), b""))
    assert [(s.record.seq, s.record.expiry) for s in held.values()] == [(3, 1), (3, 1)]


def test_a_record_is_newer_than_itself_only_when_renewed() -> None:
    record = index_record(NETWORK, "m", stamp(expiry=1000))
    assert not newer(record, record)
    assert newer(renewed(record, 1001), record)
    assert not newer(record, renewed(record, 1001))
