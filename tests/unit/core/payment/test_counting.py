"""A client's own count."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core import metering, tokens
from lloom.core.billing.quote import Basis
from lloom.core.payment.counting import Tally, accepted
from lloom.core.sse import event
from tests.money_support import accounting

ENCODING = "o200k_base"


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    """Loading an encoding takes longer than hypothesis waits for an example."""
    tokens.count("", ENCODING)


def chunk(text: str) -> bytes:
    return event(msgspec.json.encode({"choices": [{"index": 0, "delta": {"content": text}}]}))


def test_more_is_accepted_only_where_the_backend_counts() -> None:
    settings = accounting(tolerance=0.5, slack=64)
    assert accepted(3, Basis.BACKEND, settings) == 69
    assert accepted(3, Basis.TEXT, settings) == 3


@given(st.lists(st.text(max_size=30), max_size=30), st.data())
def test_however_it_arrives_the_whole_is_counted_as_one_text(texts: list[str], data: st.DataObject) -> None:
    stream = b"".join(map(chunk, texts))
    tally, at, counts = Tally("chat", ENCODING), 0, 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream)))
        back = data.draw(st.integers(0, at))  # what was only looked at before comes again
        tally.feed(back, stream[back : at + step])
        at = min(len(stream), at + step)
        assert tally.fed == at
        tally.so_far()
        counts += 1
    exact = tokens.count("".join(texts), ENCODING)
    assert tally.total() == exact
    assert tally.so_far() <= len("".join(texts).encode()) + counts


def test_a_count_so_far_does_not_read_everything_again() -> None:
    tally = Tally("chat", ENCODING)
    for number in range(100):
        tally.feed(tally.fed, chunk(f"word{number} "))
        tally.so_far()
    assert tally.so_far() >= tally.total() > 100


def test_what_is_not_kept_counts_by_its_bytes() -> None:
    tally = Tally("chat", ENCODING)
    part = chunk("a b c d " * 4096)
    while not tally._kept.full:
        tally.feed(tally.fed, part)
    kept, before = tally.fed, tally.total()
    tally.feed(tally.fed, b"x" * 4_000)
    assert tally.fed == kept + 4_000 > metering.KEPT_BYTES
    assert tally.total() == before + 1_000


@given(st.lists(st.text(max_size=30), max_size=20))
def test_a_completion_counts_its_texts_and_nothing_else(texts: list[str]) -> None:
    tally = Tally("completions", ENCODING)
    for text in texts:
        choice = {"index": 0, "text": text, "delta": {"content": "not of this operation"}}
        tally.feed(tally.fed, event(msgspec.json.encode({"choices": [choice]})))
    assert tally.total() == tokens.count("".join(texts), ENCODING)


def test_vectors_have_no_tokens_however_many_there_are() -> None:
    tally = Tally("embeddings", ENCODING)
    vector = event(b'{"object":"embedding","index":0,"embedding":"%b"}' % (b"A" * 1_000_000))
    while tally.fed <= metering.KEPT_BYTES:
        tally.feed(tally.fed, vector)
    assert tally.so_far() == tally.total() == 0
    assert not tally._kept._bytes
