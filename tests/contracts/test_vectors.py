"""The vectors that Solidity reads too: typed data, hashes and costs are what eth-account, eth-abi and fractions make of them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lloom.core.eip712 import Domain, StructType, signer
from lloom.core.identity import keccak
from lloom.core.billing.quote import Quote, cost
from tests.contracts.make_vectors import PLACE, text

VECTORS = json.loads(PLACE.read_text())
TYPES = {name: StructType(type_string) for name, type_string in VECTORS["types"].items()}
SIGNED = [
    (name, case)
    for name, cases in (("Voucher", "vouchers"), ("Reserve", "reserves"), ("SignerProof", "signerProofs"))
    for case in VECTORS[cases]
]


def raw(text_: str) -> bytes:
    return bytes.fromhex(text_.removeprefix("0x"))


def encoded(name: str, case: dict[str, str]) -> bytes:
    values = (
        raw(case[member]) if case[member].startswith("0x") else int(case[member]) for member in TYPES[name].members
    )
    return TYPES[name].encode(values)


def test_the_file_is_what_its_maker_writes() -> None:
    assert PLACE.read_text() == text(), "run python -m tests.contracts.make_vectors"


@pytest.mark.parametrize(("name", "case"), SIGNED)
def test_a_digest_is_the_oracles(name: str, case: dict[str, str]) -> None:
    domain = Domain(int(case["chainId"]), raw(case["contract"]))
    assert domain.digest(TYPES[name], encoded(name, case)) == raw(case["digest"])


@pytest.mark.parametrize(("name", "case"), SIGNED)
def test_the_64_byte_signature_is_by_who_should_have_signed(name: str, case: dict[str, str]) -> None:
    vs = int(case["vs"], 16)
    s, recovery = vs & ((1 << 255) - 1), vs >> 255
    by = signer(raw(case["digest"]), raw(case["r"]) + s.to_bytes(32, "big") + bytes([recovery]))
    assert by == raw(case["signer" if name == "SignerProof" else "client"])


@pytest.mark.parametrize("case", VECTORS["vouchers"])
def test_a_lane_id_is_the_hash_of_its_four_words(case: dict[str, str]) -> None:
    lane = StructType("Lane(address client,address executor,address token,uint64 lane)")
    words = (raw(case["client"]), raw(case["executor"]), raw(case["token"]), int(case["lane"]))
    assert keccak(lane.encode(words)) == raw(case["laneId"])


@pytest.mark.parametrize("case", VECTORS["usages"])
def test_a_usage_hash_is_that_of_an_array_of_static_structs(case: dict[str, Any]) -> None:
    entry = StructType("ModelUsage(bytes32 model,uint80 inputTokens,uint80 outputTokens,uint56 requests)")
    columns = [case[column] for column in ("models", "inputTokens", "outputTokens", "requests")]
    rows = [entry.encode((raw(model), *map(int, numbers))) for model, *numbers in zip(*columns, strict=True)]
    head = (32).to_bytes(32, "big") + len(rows).to_bytes(32, "big")
    assert keccak(head + b"".join(rows)) == raw(case["hash"])


@pytest.mark.parametrize("case", VECTORS["costs"])
def test_a_cost_is_rounded_up_once(case: dict[str, str]) -> None:
    quote = SimpleNamespace(
        input_price=int(case["inputPrice"]),
        cached_price=int(case["cachedPrice"]),
        output_price=int(case["outputPrice"]),
        request_fee=int(case["requestFee"]),
    )
    counts = (int(case[count]) for count in ("inputTokens", "cachedTokens", "outputTokens"))
    assert cost(cast(Quote, quote), *counts) == int(case["cost"])
