"""Typed data against eth-account, which knows nothing of our code."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_keys.constants import SECPK1_N as ORDER
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.billing.quote import QUOTE, Quote
from lloom.core.billing.receipt import RECEIPT, Receipt
from lloom.core.billing.request import REQUEST, Request
from lloom.core.eip712 import NAME, VERSION, Domain, StructType, signer
from lloom.core.errors import PeerFault
from lloom.core.identity import Identity, keccak

ALICE = Identity(bytes(31) + b"\x01")
OFF = Domain()
STRUCTS = [QUOTE, REQUEST, RECEIPT]
MAIL = StructType("Mail(address from,bytes32 hash,uint8 kind,uint64 time,uint128 amount)")


def members(struct: StructType) -> list[dict[str, str]]:
    listed = struct.type_string.partition("(")[2].rstrip(")").split(",")
    return [dict(zip(("type", "name"), member.split(" "), strict=True)) for member in listed]


def any_value(kind: str) -> st.SearchStrategy[Any]:
    if kind.startswith("uint"):
        return st.integers(0, 2 ** int(kind[4:]) - 1)
    return st.binary(min_size=20, max_size=20) if kind == "address" else st.binary(min_size=32, max_size=32)


def values_of(struct: StructType) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(*(any_value(member["type"]) for member in members(struct)))


typed_values = st.sampled_from(STRUCTS).flatmap(lambda struct: st.tuples(st.just(struct), values_of(struct)))
domains = st.builds(Domain, st.integers(0, 2**64), st.binary(min_size=20, max_size=20))


def oracle(struct: StructType, values: tuple[Any, ...], domain: Domain) -> Any:
    """The same typed data as eth-account sees it."""
    types = {struct.type_string.partition("(")[0]: members(struct)}
    described = {"name": NAME, "version": VERSION, "chainId": domain.chain_id, "verifyingContract": domain.contract}
    return encode_typed_data(described, types, dict(zip(struct.members, values, strict=True)))


@given(typed_values, domains)
def test_a_digest_is_the_one_that_eth_account_computes(case: Any, domain: Domain) -> None:
    struct, values = case
    signable = oracle(struct, values, domain)
    assert signable.header == domain.separator
    assert signable.body == struct.hash(struct.encode(values))
    assert keccak(b"\x19" + signable.version + signable.header + signable.body) == domain.digest(
        struct, struct.encode(values)
    )


@given(typed_values)
def test_a_signature_is_the_one_that_eth_account_makes(case: Any) -> None:
    struct, values = case
    theirs = Account.sign_message(oracle(struct, values, OFF), ALICE.secret).signature
    ours = ALICE.sign_digest(OFF.digest(struct, struct.encode(values)))
    assert ours[:64] + bytes([ours[64] + 27]) == theirs


@given(typed_values)
def test_eth_account_recovers_who_signed(case: Any) -> None:
    struct, values = case
    digest = OFF.digest(struct, struct.encode(values))
    signature = ALICE.sign_digest(digest)
    found = Account.recover_message(oracle(struct, values, OFF), signature=signature[:64] + bytes([signature[64] + 27]))
    assert bytes.fromhex(found[2:]) == ALICE.address == signer(digest, signature)


@given(typed_values)
def test_encoding_and_decoding_are_inverse(case: Any) -> None:
    struct, values = case
    assert struct.decode(struct.encode(values)) == values


@given(st.data())
def test_every_byte_that_decodes_matters(data: st.DataObject) -> None:
    struct, values = data.draw(typed_values)
    changed = bytearray(struct.encode(values))
    changed[data.draw(st.integers(0, struct.size - 1))] ^= data.draw(st.integers(1, 255))
    try:
        decoded = struct.decode(bytes(changed))
    except PeerFault:
        return
    assert decoded != values
    assert struct.encode(decoded) == changed


@given(values_of(MAIL), domains, domains)
def test_a_signature_is_good_in_its_own_domain_only(values: Any, here: Domain, there: Domain) -> None:
    encoded = MAIL.encode(values)
    assert (here == there) is (here.digest(MAIL, encoded) == there.digest(MAIL, encoded))


@pytest.mark.parametrize("size", [0, 31, MAIL.size - 1, MAIL.size + 1, MAIL.size + 32])
def test_a_struct_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(PeerFault, match="bytes where 160 were expected"):
        MAIL.decode(bytes(size))


@pytest.mark.parametrize("word", [0, 2, 3, 4])
def test_padding_that_is_not_zero_is_refused(word: int) -> None:
    encoded = bytearray(MAIL.size)
    encoded[32 * word] = 1
    with pytest.raises(PeerFault, match="too large"):
        MAIL.decode(bytes(encoded))


@pytest.mark.parametrize(
    ("place", "value", "error"),
    [
        (0, bytes(19), ValueError),
        (0, 5, ValueError),
        (1, bytes(33), ValueError),
        (2, 256, OverflowError),
        (2, -1, OverflowError),
        (3, bytes(8), ValueError),
        (3, 1.0, ValueError),
        (4, 2**128, OverflowError),
        (4, bytes(16), ValueError),
    ],
)
def test_a_value_that_does_not_fit_is_never_encoded(place: int, value: Any, error: type[Exception]) -> None:
    values: list[Any] = [bytes(20), bytes(32), 0, 0, 0]
    values[place] = value
    with pytest.raises(error):
        MAIL.encode(values)


def test_values_and_members_are_as_many() -> None:
    with pytest.raises(ValueError, match="zip"):
        MAIL.encode([bytes(20), bytes(32)])


def test_the_high_s_twin_of_a_signature_is_refused() -> None:
    digest = keccak(b"anything")
    signature = ALICE.sign_digest(digest)
    s = int.from_bytes(signature[32:64], "big")
    twin = signature[:32] + (ORDER - s).to_bytes(32, "big") + bytes([signature[64] ^ 1])
    assert signer(digest, signature) == ALICE.address
    with pytest.raises(PeerFault, match="high s"):
        signer(digest, twin)


@pytest.mark.parametrize("signature", [b"", bytes(65), bytes(64), b"\xff" * 65, bytes(66)])
def test_what_is_no_signature_is_refused(signature: bytes) -> None:
    with pytest.raises(PeerFault):
        signer(bytes(32), signature)


@pytest.mark.parametrize(("kind", "struct"), [(Quote, QUOTE), (Request, REQUEST), (Receipt, RECEIPT)])
def test_fields_stand_in_the_order_of_the_type_string(kind: type[msgspec.Struct], struct: StructType) -> None:
    snake = tuple(re.sub(r"([A-Z])", lambda found: "_" + found[1].lower(), name) for name in struct.members)
    assert kind.__struct_fields__ == snake
