"""Offers: what is not one is its signer's fault, whatever the bytes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lloom.core.errors import PeerFault
from lloom.core.identity import Identity
from lloom.core.offer import ModelOffer, Offer, seal, unseal

ALICE = Identity(b"\x01" * 32)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc1", b"\x91" * 2000, msgspec.msgpack.encode({"software": "no UTF-8"}).replace(b"no", b"\xff\xff")],
    ids=["nothing", "no msgpack", "nested", "no UTF-8"],
)
def test_a_malformed_offer_is_its_signers_fault(payload: bytes) -> None:
    sealed = payload + ALICE.sign("offer", "test", payload)
    with pytest.raises(PeerFault):
        unseal(sealed, ALICE.address, "test", 0)


@pytest.mark.parametrize("features", [("x" * 65,), ("",), ("x",) * 33, (7,)])
def test_an_offer_whose_features_no_answer_of_a_validator_could_carry_is_refused(features: Any) -> None:
    terms = ModelOffer(
        id="m", context=1, max_output=1, parallel=1, encoding="none", backend="mock", features=("x" * 64,)
    )
    offer = Offer(executor=ALICE.address, seq=1, expires=9, endpoints=(), models=(terms,), software="test")
    assert unseal(seal(offer, ALICE, "test"), ALICE.address, "test", 0) == offer
    bad = msgspec.structs.replace(offer, models=(msgspec.structs.replace(terms, features=features),))
    with pytest.raises(PeerFault):
        unseal(seal(bad, ALICE, "test"), ALICE.address, "test", 0)
