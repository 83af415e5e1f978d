"""What is signed about a request: nothing in it can be changed, and a receipt has to be true to what its client knows."""

from __future__ import annotations

import hashlib
import re
from fractions import Fraction
from math import ceil
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.eip712 import Domain, StructType
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import Identity
from lloom.core.messages import ModelCall, Receipts, SignedReceipt, decode, decoder, encode
from lloom.core.offer import ModelOffer, Offer, Payment
from lloom.core.receipt import (
    QUOTE,
    RECEIPT,
    REQUEST,
    Delivery,
    Draft,
    Lane,
    Quote,
    Receipt,
    Request,
    ResponseHash,
    Status,
    check_receipt,
    check_request,
    cost,
    quote_hash,
    quote_of,
    read_receipt,
    request_digest,
    request_hash,
    request_named,
    sign_receipt,
    sign_request,
)

CLIENT = Identity(bytes(31) + b"\x01")
EXECUTOR = Identity(bytes(31) + b"\x02")
OFF = Domain()
SALT = bytes(range(16))
NOW = 1_800_000_000.0
MODEL = ModelOffer(
    id="smollm2-135m",
    context=8192,
    max_output=2048,
    parallel=2,
    encoding="o200k_base",
    backend="smollm2",
    input_price=150_000,
    output_price=600_000,
)
OFFER = Offer(
    executor=EXECUTOR.address, seq=7, expires=int(NOW) + 900, endpoints=(), models=(MODEL,), software="lloom/test"
)
TERMS = quote_of(OFFER, MODEL)
REQUESTED = Request(
    quote_hash=quote_hash(TERMS),
    client=CLIENT.address,
    lane=3,
    request_id=bytes(32),
    request_hash=request_hash(SALT, "chat", MODEL.id, b"{}"),
    max_input_tokens=100,
    max_output_tokens=50,
    max_cost=cost(TERMS, 100, 0, 50),
    deadline=int(NOW) + 60,
)
ENCODED, DIGEST, SIGNATURE = sign_request(REQUESTED, CLIENT, OFF)
ANSWER = b'data: {"choices":[]}\n\n'
DELIVERY = Delivery(
    request=REQUESTED,
    request_digest=request_digest(ENCODED, OFF),
    quote=TERMS,
    response_hash=hashlib.sha256(SALT + ANSWER).digest(),
    response_bytes=len(ANSWER),
)
DRAFT = Draft(
    lane=Lane(CLIENT.address, TERMS.token, REQUESTED.lane),
    request_digest=DELIVERY.request_digest,
    model=TERMS.model,
    response_hash=DELIVERY.response_hash,
    response_bytes=DELIVERY.response_bytes,
    input_tokens=80,
    cached_tokens=20,
    output_tokens=10,
    cost=cost(TERMS, 80, 20, 10),
    started_at=1,
    finished_at=2,
    status=Status.COMPLETE,
)
RECEIVED = DRAFT.numbered(1, 0)

tokens = st.integers(0, 2**32 - 1)
prices = st.integers(0, 2**62)


def changed(value: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(value, **fields)


def signed(**fields: Any) -> SignedReceipt:
    """The good receipt with other `fields`, signed by its executor all the same."""
    return sign_receipt(changed(RECEIVED, **fields), EXECUTOR, OFF)


def other(value: int | bytes) -> int | bytes:
    return value ^ 1 if isinstance(value, int) else bytes([value[0] ^ 1]) + value[1:]


@pytest.mark.parametrize(("kind", "struct"), [(Quote, QUOTE), (Request, REQUEST), (Receipt, RECEIPT)])
def test_fields_stand_in_the_order_of_the_type_string(kind: type[msgspec.Struct], struct: StructType) -> None:
    snake = tuple(re.sub(r"([A-Z])", lambda found: "_" + found[1].lower(), name) for name in struct.members)
    assert kind.__struct_fields__ == snake


def test_a_signed_request_arrives_as_it_was() -> None:
    call = ModelCall(request=ENCODED, signature=SIGNATURE, salt=SALT, model=MODEL.id)
    received = decode(encode(call), decoder(ModelCall))
    checked = check_request(received.request, received.signature, OFF, NOW)
    assert checked.request == REQUESTED
    assert checked.digest == DELIVERY.request_digest == DIGEST


@pytest.mark.parametrize("field", Request.__struct_fields__)
def test_a_request_with_any_field_changed_is_refused(field: str) -> None:
    forged = changed(REQUESTED, **{field: other(getattr(REQUESTED, field))})
    encoded = REQUEST.encode(msgspec.structs.astuple(forged))
    with pytest.raises(PeerFault):
        check_request(encoded, SIGNATURE, OFF, NOW)


@given(st.integers(0, len(ENCODED + SIGNATURE) - 1), st.integers(1, 255))
def test_a_request_with_any_byte_changed_is_refused(place: int, flip: int) -> None:
    data = bytearray(ENCODED + SIGNATURE)
    data[place] ^= flip
    with pytest.raises(PeerFault):
        check_request(bytes(data[: len(ENCODED)]), bytes(data[len(ENCODED) :]), OFF, NOW)


@given(st.binary(max_size=400), st.binary(max_size=70))
def test_garbage_is_refused_as_a_peers_fault(encoded: bytes, signature: bytes) -> None:
    with pytest.raises(PeerFault):
        check_request(encoded, signature, OFF, NOW)
    with pytest.raises(PeerFault):
        check_receipt(SignedReceipt(encoded, signature), DELIVERY, OFF)


def test_a_request_signed_for_another_chain_is_refused() -> None:
    encoded, _, signature = sign_request(REQUESTED, CLIENT, Domain(1, bytes(20)))
    with pytest.raises(PeerFault, match="did not sign"):
        check_request(encoded, signature, OFF, NOW)


def test_a_request_is_good_until_its_deadline_and_another_executor_may_have_a_better_clock() -> None:
    check_request(ENCODED, SIGNATURE, OFF, REQUESTED.deadline - 0.001)
    with pytest.raises(RetryElsewhere, match="deadline") as late:
        check_request(ENCODED, SIGNATURE, OFF, REQUESTED.deadline)
    assert late.value.status == 504
    assert not isinstance(late.value, PeerFault)


def test_a_true_receipt_is_accepted_as_it_travelled() -> None:
    received = decode(encode(Receipts([signed()])), decoder(Receipts)).items[0]
    checked = check_receipt(received, DELIVERY, OFF)
    assert checked.receipt == RECEIVED == read_receipt(received.receipt)
    assert checked.executor == EXECUTOR.address
    assert checked.signed == received


def test_a_receipt_names_its_request_and_what_has_not_its_size_names_none() -> None:
    encoded = signed().receipt
    assert request_named(encoded) == RECEIVED.request_digest
    for other_size in (b"", encoded[:-1], encoded + b"0"):
        with pytest.raises(PeerFault):
            request_named(other_size)


@pytest.mark.parametrize("field", Receipt.__struct_fields__)
def test_a_receipt_with_any_field_changed_is_refused(field: str) -> None:
    good = signed()
    forged = RECEIPT.encode(msgspec.structs.astuple(changed(RECEIVED, **{field: other(getattr(RECEIVED, field))})))
    with pytest.raises(PeerFault, match="did not sign"):
        check_receipt(SignedReceipt(forged, good.signature), DELIVERY, OFF)


@given(st.integers(0, RECEIPT.size + 64), st.integers(1, 255))
def test_a_receipt_with_any_byte_changed_is_refused(place: int, flip: int) -> None:
    good = signed()
    data = bytearray(good.receipt + good.signature)
    data[place] ^= flip
    with pytest.raises(PeerFault):
        check_receipt(SignedReceipt(bytes(data[: RECEIPT.size]), bytes(data[RECEIPT.size :])), DELIVERY, OFF)


def test_a_receipt_of_somebody_else_is_refused() -> None:
    with pytest.raises(PeerFault, match="did not sign"):
        check_receipt(sign_receipt(RECEIVED, CLIENT, OFF), DELIVERY, OFF)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"request_digest": bytes(32)}, "another request"),
        ({"model": bytes(32)}, "another model"),
        ({"status": 9}, "unknown status"),
        ({"response_hash": bytes(32)}, "another answer"),
        ({"response_bytes": len(ANSWER) + 1}, "another answer"),
        ({"input_tokens": 81, "cost": cost(TERMS, 81, 20, 10)}, "more input tokens"),
        ({"cached_tokens": 21, "cost": cost(TERMS, 80, 21, 10)}, "more input tokens"),
        ({"output_tokens": 51, "cost": cost(TERMS, 80, 20, 51)}, "more output tokens"),
        ({"cost": RECEIVED.cost + 1}, "not the quoted one"),
        ({"cost": RECEIVED.cost - 1}, "not the quoted one"),
        ({"status": Status.FAILED}, "not the quoted one"),
        ({"started_at": 3}, "an end before"),
        ({"lane_seq": 0}, "impossible place"),
        ({"lane_charged": RECEIVED.cost - 1}, "impossible place"),
    ],
)
def test_an_executor_that_signs_an_untruth_is_caught(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(PeerFault, match=problem) as caught:
        check_receipt(signed(**fields), DELIVERY, OFF)
    assert caught.value.code == "bad_receipt"


def test_a_receipt_over_the_requests_ceiling_is_refused() -> None:
    strict = changed(DELIVERY, request=changed(REQUESTED, max_cost=RECEIVED.cost - 1))
    with pytest.raises(PeerFault, match="ceiling"):
        check_receipt(signed(), strict, OFF)


def test_a_failed_request_costs_nothing_and_its_last_bytes_may_be_lost() -> None:
    checked = check_receipt(signed(status=Status.FAILED, cost=0, response_bytes=len(ANSWER) + 9), DELIVERY, OFF)
    assert checked.receipt.cost == 0


def test_a_receipt_counts_what_was_charged_before_it() -> None:
    receipt = DRAFT.numbered(5, 1000)
    assert (receipt.lane_seq, receipt.lane_charged) == (5, 1000 + DRAFT.cost)
    assert {name: getattr(DRAFT, name) for name in set(Draft.__struct_fields__) - {"lane"}} == {
        name: getattr(receipt, name) for name in set(Receipt.__struct_fields__) - {"lane_seq", "lane_charged"}
    }


@given(tokens, tokens, tokens, prices, prices, prices, prices)
def test_cost_is_rounded_up_once(a: int, b: int, c: int, pa: int, pb: int, pc: int, fee: int) -> None:
    quote = changed(TERMS, input_price=pa, cached_price=pb, output_price=pc, request_fee=fee)
    assert cost(quote, a, b, c) == fee + ceil(Fraction(a * pa + b * pb + c * pc, 1_000_000))


def test_the_smallest_price_of_one_token_costs_one_unit_and_no_tokens_cost_the_fee() -> None:
    quote = changed(TERMS, input_price=1, request_fee=5)
    assert cost(quote, 1, 0, 0) == 6
    assert cost(quote, 0, 0, 0) == 5
    assert cost(quote, 1_000_000, 0, 0) == 6
    assert cost(quote, 1_000_001, 0, 0) == 7


def test_both_sides_derive_the_same_quote_from_an_offer() -> None:
    received = msgspec.msgpack.decode(msgspec.msgpack.encode(OFFER), type=Offer)
    model = received.model(MODEL.id)
    assert model is not None
    assert quote_hash(quote_of(received, model)) == REQUESTED.quote_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "other"},
        {"context": 1},
        {"max_output": 1},
        {"encoding": "cl100k_base"},
        {"features": ("json",)},
        {"operations": ("embeddings",)},
        {"input_price": 1},
        {"output_price": 1},
    ],
)
def test_other_terms_make_another_quote(changes: dict[str, Any]) -> None:
    assert quote_hash(quote_of(OFFER, changed(MODEL, **changes))) != REQUESTED.quote_hash


@pytest.mark.parametrize("changes", [{"executor": CLIENT.address}, {"seq": 8}, {"expires": 5}])
def test_another_offer_makes_other_quotes(changes: dict[str, Any]) -> None:
    assert quote_hash(quote_of(changed(OFFER, **changes), MODEL)) != REQUESTED.quote_hash


def test_each_way_to_pay_makes_a_quote_of_its_own() -> None:
    """Even at the same price in the same token: else an executor could not tell on which chain it is paid."""
    ways = (None, Payment(1, bytes(20), bytes(20), 1_000_000), Payment(2, bytes(20), bytes(20), 1_000_000))
    other_contract = Payment(1, bytes(19) + b"\1", bytes(20), 1_000_000)
    hashes = {quote_hash(quote_of(OFFER, MODEL, way)) for way in (*ways, other_contract)}
    assert len(hashes) == 4


@given(st.text(st.characters(codec="ascii"), max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_model_and_body_cannot_be_shifted_into_each_other(text: str, one: int, two: int) -> None:
    first, second = ((text[:cut], text[cut:].encode()) for cut in (one, two))
    assert (request_hash(SALT, "chat", *first) == request_hash(SALT, "chat", *second)) is (first == second)


def test_equal_requests_hash_differently_under_another_salt() -> None:
    assert request_hash(SALT, "chat", "m", b"x") != request_hash(bytes(16), "chat", "m", b"x")


def test_what_is_done_with_a_body_is_part_of_what_is_signed() -> None:
    assert request_hash(SALT, "chat", "m", b"x") != request_hash(SALT, "completions", "m", b"x")


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(0, 100), st.data())
def test_an_answer_hashes_alike_however_it_was_cut(parts: list[bytes], keep: int, data: st.DataObject) -> None:
    whole = b"".join(parts)
    found = ResponseHash(SALT, keep)
    for part in parts:
        found.update(part)
    assert found.length == len(whole)
    length = data.draw(st.integers(max(0, len(whole) - keep), len(whole)))
    assert found.digest(length) == hashlib.sha256(SALT + whole[:length]).digest()
    assert found.digest(len(whole)) == hashlib.sha256(SALT + whole).digest()


def test_the_hash_keeps_no_more_of_an_answer_than_it_was_told() -> None:
    found = ResponseHash(SALT, 100)
    for _ in range(1000):
        found.update(bytes(10))
    assert sum(map(len, found._tail)) == 100


@pytest.mark.parametrize("length", [-1, 0, 20, 101, 2**64])
def test_a_cancel_at_an_impossible_byte_is_the_clients_fault(length: int) -> None:
    found = ResponseHash(SALT, 50)
    for _ in range(10):
        found.update(bytes(10))
    with pytest.raises(PeerFault, match="bytes received"):
        found.digest(length)


def test_an_amount_that_does_not_fit_is_never_signed() -> None:
    with pytest.raises(OverflowError):
        sign_receipt(changed(RECEIVED, cost=2**128), EXECUTOR, OFF)
