"""An answer has one hash, up to whichever byte arrived."""

from __future__ import annotations

import hashlib

import pytest
from billing_support import SALT
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.billing.response import ResponseHash
from lloom.core.errors import PeerFault


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
