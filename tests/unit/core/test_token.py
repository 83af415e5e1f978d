from __future__ import annotations

import hashlib
import re

import pytest

from lloom.core.token import digest, make


def test_a_key_holds_all_its_random_bits_in_a_form_that_headers_take() -> None:
    first, second = make(bytes(32)), make(bytes(31) + b"\1")
    assert first != second
    assert re.fullmatch(r"sk-lloom-[A-Za-z0-9_-]{43}", first)


def test_a_key_of_fewer_bits_is_never_made() -> None:
    with pytest.raises(AssertionError):
        make(bytes(16))


def test_what_is_kept_is_what_sha256sum_prints() -> None:
    assert digest(b"sk-lloom-x").hex() == hashlib.sha256(b"sk-lloom-x").hexdigest()
