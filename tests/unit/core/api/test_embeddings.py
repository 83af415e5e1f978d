"""OpenAI's embeddings: what is read of them, and what comes back."""

from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.api.embeddings import Embeddings, EmbeddingsAsked
from lloom.core.errors import CallerFault, PeerFault
from lloom.core.messages import Done
from lloom.core.sse import event

FLOATS = st.lists(st.floats(width=32, min_value=-1, max_value=1), min_size=1, max_size=8)
DONE = Done(5, 0, b'{"prompt_tokens":5,"total_tokens":5}')


def read(texts: Any = "one", **fields: Any) -> EmbeddingsAsked:
    return Embeddings().read(msgspec.json.encode({"model": "M", "input": texts, **fields}), "req")


def packed(vector: list[float]) -> bytes:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector))


def vector(index: int, data: bytes) -> bytes:
    return event(b'{"object":"embedding","index":%d,"embedding":"%b"}' % (index, data))


def test_what_routing_needs_is_read() -> None:
    asked = read(["one", "three"], dimensions=8, encoding_format="base64", user="u")
    request = asked.request
    assert (request.operation, request.model, request.stream, request.max_output) == ("embeddings", "m", False, 0)
    assert (request.prompts, request.text_bytes, request.features) == (2, 5, frozenset())
    assert (asked.form, asked.dimensions) == ("base64", 8)


@pytest.mark.parametrize(
    ("texts", "prompts", "text_bytes"),
    [("é", 1, 2), ([1, 2, 3], 1, 24), (["a", "bcd"], 2, 3), ([[1], [2, 3]], 2, 16), (["a"] * 2048, 2048, 1)],
)
def test_an_input_is_text_or_tokens_or_several(texts: Any, prompts: int, text_bytes: int) -> None:
    request = read(texts).request
    assert (request.prompts, request.text_bytes) == (prompts, text_bytes)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"texts": None}, "input"),
        ({"texts": ""}, "input"),
        ({"texts": []}, "input"),
        ({"texts": ["a", ""]}, "input"),
        ({"texts": [[]]}, "input"),
        ({"texts": ["a", 1]}, "input"),
        ({"texts": {"a": 1}}, "input"),
        ({"texts": [1.5]}, "input[0]"),
        ({"texts": ["a"] * 2049}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": "8"}, "dimensions"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"user": 1}, "user"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(CallerFault) as raised:
        read(**fields)
    assert (raised.value.status, raised.value.param) == (400, param)


@given(st.lists(FLOATS, min_size=1, max_size=5), st.randoms(), st.data())
def test_vectors_come_back_in_order_in_either_form(vectors: list[list[float]], rng: Any, data: st.DataObject) -> None:
    sent = [vector(index, packed(floats)) for index, floats in enumerate(vectors)]
    rng.shuffle(sent)
    for form in ("float", "base64"):
        whole, stream = read(["x"] * len(vectors), encoding_format=form).whole(), b"".join(sent)
        while stream:
            cut = data.draw(st.integers(1, len(stream)))
            whole.feed(stream[:cut])
            stream = stream[cut:]
        answer = msgspec.json.decode(whole.end(DONE))
        expected = vectors if form == "float" else [packed(floats).decode() for floats in vectors]
        assert [item["embedding"] for item in answer["data"]] == expected
        assert [item["index"] for item in answer["data"]] == list(range(len(vectors)))
        assert (answer["object"], answer["model"]) == ("list", "m")


def test_the_usage_names_no_tokens_of_an_answer() -> None:
    whole = read().whole()
    whole.feed(vector(0, packed([1.0])))
    assert msgspec.json.decode(whole.end(DONE))["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    assert msgspec.json.decode(whole.end(Done(4, 0)))["usage"] == {"prompt_tokens": 4, "total_tokens": 4}


GOOD = packed([1.0, 2.0])


@pytest.mark.parametrize(
    "sent",
    [
        vector(1, GOOD),
        vector(-1, GOOD),
        vector(0, GOOD) * 2,
        vector(0, b""),
        vector(0, GOOD[:-1]),
        vector(0, base64.b64encode(b"12345678901")),
        vector(0, packed([1.0])),
        vector(0, packed([1.0, float("nan")])),
        vector(0, packed([1.0, float("inf")])),
        vector(0, packed([float("-inf"), float("inf")])),
        event(b"[]"),
    ],
)
def test_a_vector_that_nobody_asked_for_is_the_executors_fault(sent: bytes) -> None:
    whole = read(dimensions=2).whole()
    with pytest.raises(PeerFault):
        whole.feed(sent)


def test_an_answer_that_lacks_a_vector_was_cut() -> None:
    whole = read(["a", "b"]).whole()
    whole.feed(vector(1, GOOD))
    with pytest.raises(PeerFault):
        whole.end(DONE)
