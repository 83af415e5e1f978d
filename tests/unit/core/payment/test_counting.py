"""A client's own count."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lloom.core import metering, tokens
from lloom.core.payment.counting import Tally, accepted, prompt
from lloom.core.receipt import Basis
from lloom.core.sse import event
from tests.money_support import accounting

ENCODING = "o200k_base"


def chunk(text: str) -> bytes:
    return event(msgspec.json.encode({"choices": [{"index": 0, "delta": {"content": text}}]}))


def test_a_prompt_counts_as_the_executor_counts_it() -> None:
    messages = [{"role": "user", "content": "How tall is the Eiffel tower?"}]
    body = msgspec.json.encode({"model": "m", "messages": messages})
    assert prompt(body, ENCODING) == tokens.count_messages(messages, [], ENCODING) > 8
    assert prompt(body, "of its own") == prompt(body, ENCODING)
    assert prompt(b"[" * 40, ENCODING) == 10


def test_more_is_accepted_only_where_the_backend_counts() -> None:
    settings = accounting(tolerance=0.5, slack=64)
    assert accepted(3, Basis.BACKEND, settings) == 69
    assert accepted(3, Basis.TEXT, settings) == 3


@given(st.lists(st.text(max_size=30), max_size=30), st.data())
def test_however_it_arrives_the_whole_is_counted_as_one_text(texts: list[str], data: st.DataObject) -> None:
    stream = b"".join(map(chunk, texts))
    tally, at, counts = Tally(ENCODING), 0, 0
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
    tally = Tally(ENCODING)
    for number in range(100):
        tally.feed(tally.fed, chunk(f"word{number} "))
        tally.so_far()
    assert tally.so_far() >= tally.total() > 100


def test_what_is_not_kept_counts_by_its_bytes() -> None:
    tally = Tally(ENCODING)
    part = chunk("a b c d " * 4096)
    while not tally._kept.full:
        tally.feed(tally.fed, part)
    kept, before = tally.fed, tally.total()
    tally.feed(tally.fed, b"x" * 4_000)
    assert tally.fed == kept + 4_000 > metering.KEPT_BYTES
    assert tally.total() == before + 1_000
