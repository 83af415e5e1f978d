"""Nothing in a receipt can be changed, and it has to be true to what its client knows."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest
from billing_support import CLIENT, ENCODED, EXECUTOR, OFF, REQUESTED, SALT, TERMS, changed, other
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.billing.lane import Lane
from lloom.core.billing.quote import cost
from lloom.core.billing.receipt import (
    RECEIPT,
    Delivery,
    Draft,
    Receipt,
    Status,
    check_receipt,
    read_receipt,
    request_named,
    sign_receipt,
)
from lloom.core.billing.request import request_digest
from lloom.core.errors import PeerFault
from lloom.core.messages import Receipts, SignedReceipt, decode, decoder, encode

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


def signed(**fields: Any) -> SignedReceipt:
    """The good receipt with other `fields`, signed by its executor all the same."""
    return sign_receipt(changed(RECEIVED, **fields), EXECUTOR, OFF)


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


@given(st.binary(max_size=400), st.binary(max_size=70))
def test_garbage_is_refused_as_a_peers_fault(encoded: bytes, signature: bytes) -> None:
    with pytest.raises(PeerFault):
        check_receipt(SignedReceipt(encoded, signature), DELIVERY, OFF)


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


def test_an_amount_that_does_not_fit_is_never_signed() -> None:
    with pytest.raises(OverflowError):
        sign_receipt(changed(RECEIVED, cost=2**128), EXECUTOR, OFF)
