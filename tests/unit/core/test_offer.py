"""Offers: what is not one is its signer's fault, whatever the bytes."""

from __future__ import annotations

import msgspec
import pytest

from lloom.core.errors import PeerFault
from lloom.core.identity import Identity
from lloom.core.offer import unseal

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
