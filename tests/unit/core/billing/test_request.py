"""Nothing in a signed request can be changed, and its hash tells its parts apart."""

from __future__ import annotations

import msgspec
import pytest
from billing_support import CLIENT, DIGEST, ENCODED, MODEL, NOW, OFF, REQUESTED, SALT, SIGNATURE, changed, other
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.billing.request import REQUEST, Request, check_request, request_digest, request_hash, sign_request
from lloom.core.eip712 import Domain
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.messages import ModelCall, decode, decoder, encode


def test_a_signed_request_arrives_as_it_was() -> None:
    call = ModelCall(request=ENCODED, signature=SIGNATURE, salt=SALT, model=MODEL.id)
    received = decode(encode(call), decoder(ModelCall))
    checked = check_request(received.request, received.signature, OFF, NOW)
    assert checked.request == REQUESTED
    assert checked.digest == request_digest(ENCODED, OFF) == DIGEST


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


@given(st.text(st.characters(codec="ascii"), max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_model_and_body_cannot_be_shifted_into_each_other(text: str, one: int, two: int) -> None:
    first, second = ((text[:cut], text[cut:].encode()) for cut in (one, two))
    assert (request_hash(SALT, "chat", *first) == request_hash(SALT, "chat", *second)) is (first == second)


def test_equal_requests_hash_differently_under_another_salt() -> None:
    assert request_hash(SALT, "chat", "m", b"x") != request_hash(bytes(16), "chat", "m", b"x")


def test_what_is_done_with_a_body_is_part_of_what_is_signed() -> None:
    assert request_hash(SALT, "chat", "m", b"x") != request_hash(SALT, "completions", "m", b"x")
