"""Events: exactly those of the contract's interface, read from their words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.identity import keccak
from lloom.core.payment.events import TOPICS, Event, Settled, decode, signature

ARTIFACT = Path(__file__).parents[4] / "contracts" / "artifacts" / "Accounting.json"
KNOWN_ELSEWHERE = {"EIP712DomainChanged"}
ABI = {
    entry["name"]: entry
    for entry in json.loads(ARTIFACT.read_text())["abi"]
    if entry["type"] == "event" and entry["name"] not in KNOWN_ELSEWHERE
}


def snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def test_every_event_of_the_contract_is_known_with_its_members_in_order() -> None:
    known = {kind.__name__: kind for kind in TOPICS.values()}
    assert set(known) == set(ABI)
    for name, entry in ABI.items():
        assert signature(known[name]) == f"{name}({','.join(member['type'] for member in entry['inputs'])})"
        assert known[name].__struct_fields__ == tuple(snake(member["name"]) for member in entry["inputs"])


@given(st.data())
def test_a_log_is_read_as_an_independent_codec_wrote_it(data: Any) -> None:
    kind = data.draw(st.sampled_from(sorted(TOPICS.values(), key=lambda each: each.__name__)))
    inputs = ABI[kind.__name__]["inputs"]
    values = [data.draw(_value(member["type"])) for member in inputs]
    topics, body = _log(kind, inputs, values)
    assert decode(topics, body) == kind(*values)


def test_a_log_of_another_contract_is_none() -> None:
    assert decode([keccak(b"Transfer(address,address,uint256)")], b"") is None
    assert decode([], b"") is None


@pytest.mark.parametrize("cut", [1, 31, 32])
def test_a_log_that_only_looks_like_one_is_refused(cut: int) -> None:
    inputs = ABI["Settled"]["inputs"]
    topics, body = _log(Settled, inputs, [bytes(20)] * 3 + [1, 2, 3, 4])
    with pytest.raises(ValueError, match="no Settled"):
        decode(topics, body[:-cut])
    with pytest.raises(ValueError, match="no Settled"):
        decode(topics[:-1], body)


@pytest.mark.parametrize("place", [3, 4, 5])
def test_a_number_that_is_too_large_for_its_member_is_refused(place: int) -> None:
    """No contract says it, but a server may: what goes into a journal by it would end whoever writes it there."""
    values = [bytes(20), bytes(20), bytes(20), 1, 2, 3, 4]
    topics, body = _log(Settled, ABI["Settled"]["inputs"], values)
    words = [*topics[1:], *(body[start : start + 32] for start in range(0, len(body), 32))]
    words[place] = b"\x01" + bytes(31)
    with pytest.raises(ValueError, match="no Settled"):
        decode([topics[0], *words[: len(topics) - 1]], b"".join(words[len(topics) - 1 :]))


def _value(kind: str) -> st.SearchStrategy[Any]:
    if kind.startswith("uint"):
        return st.integers(0, (1 << int(kind.removeprefix("uint"))) - 1)
    return st.binary(min_size=20, max_size=20) if kind == "address" else st.binary(min_size=32, max_size=32)


def _log(kind: type[Event], inputs: list[Any], values: list[Any]) -> tuple[list[bytes], bytes]:
    pairs = list(zip(inputs, values, strict=True))
    topics = [encode([member["type"]], [value]) for member, value in pairs if member["indexed"]]
    rest = [(member["type"], value) for member, value in pairs if not member["indexed"]]
    return [keccak(signature(kind).encode()), *topics], encode([each[0] for each in rest], [each[1] for each in rest])
