"""Embeddings as events."""

from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.adapters.llm.embeddings import events
from lloom.core import sse
from lloom.core.errors import CallerFault, RetryElsewhere

FLOATS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=8)
USAGE = {"prompt_tokens": 3, "total_tokens": 3}


def answer(*vectors: Any, **fields: Any) -> bytes:
    data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    return msgspec.json.encode({"object": "list", "data": data, "model": "theirs", "usage": USAGE, **fields})


def packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def read(made: bytes, request: bytes = b"{}") -> list[Any]:
    *found, last = [sse.payload(event) for event in sse.Splitter().feed(b"".join(events(made, request)))]
    assert last == sse.DONE
    return [msgspec.json.decode(each) for each in found]


@given(st.lists(FLOATS, min_size=1, max_size=4))
def test_floats_and_base64_become_the_same_events(vectors: list[list[float]]) -> None:
    *found, usage = read(answer(*vectors))
    assert found == [{"object": "embedding", "index": i, "embedding": packed(v)} for i, v in enumerate(vectors)]
    assert usage == {"choices": [], "usage": USAGE}
    assert read(answer(*map(packed, vectors))) == [*found, usage]


def test_a_backend_that_counts_nothing_reports_nothing() -> None:
    assert len(read(answer([1.0], usage=None))) == 1


@pytest.mark.parametrize(
    "made",
    [
        b"",
        b"[]",
        b'{"data":1}',
        answer("no base64"),
        answer("AAA"),
        answer([1e39]),
        answer([None]),
        answer({}),
        b"[" * 10**5,
    ],
)
def test_what_is_no_list_of_vectors_is_tried_elsewhere(made: bytes) -> None:
    with pytest.raises(RetryElsewhere):
        read(made)


def test_other_dimensions_than_were_asked_are_the_callers_fault() -> None:
    assert read(answer([1.0, 2.0]), b'{"dimensions":2}')
    with pytest.raises(CallerFault) as raised:
        read(answer([1.0, 2.0]), b'{"dimensions":3}')
    assert raised.value.param == "dimensions"
