from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.errors import CallerFault
from lloom.core.replays import Key, Replays


def key(name: bytes) -> Key:
    return "alice", "/v1/chat/completions", name


def code(replays: Replays[str], *ask: object) -> str | None:
    with pytest.raises(CallerFault) as caught:
        replays.begin(*ask)  # type: ignore[arg-type]
    assert caught.value.status == 409
    return caught.value.code


def test_the_same_request_gets_the_same_answer_and_another_one_none() -> None:
    replays: Replays[str] = Replays(800, 60)
    assert replays.begin(key(b"a"), b"1", 0) is None
    assert code(replays, key(b"a"), b"1", 1) == "idempotency_key_in_use"
    replays.keep(key(b"a"), "hello", 5, 2)
    assert replays.begin(key(b"a"), b"1", 3) == "hello"
    assert code(replays, key(b"a"), b"2", 3) == "idempotency_key_reused"
    assert replays.begin(("bob", *key(b"a")[1:]), b"1", 3) is None


def test_an_answer_that_was_not_made_is_made_anew() -> None:
    replays: Replays[str] = Replays(800, 60)
    replays.begin(key(b"a"), b"1", 0)
    replays.forget(key(b"a"))
    assert replays.begin(key(b"a"), b"1", 0) is None


def test_answers_are_kept_for_a_while() -> None:
    replays: Replays[str] = Replays(800, 60)
    replays.begin(key(b"a"), b"1", 0)
    replays.keep(key(b"a"), "hello", 5, 10)
    assert replays.begin(key(b"a"), b"1", 69) == "hello"
    assert replays.begin(key(b"a"), b"2", 70) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30), st.booleans()), max_size=40))
def test_no_more_bytes_are_kept_than_set(asked: list[tuple[int, int, bool]]) -> None:
    replays: Replays[int] = Replays(100, 60)
    kept: dict[int, int] = {}
    for now, (number, size, well) in enumerate(asked):
        name = key(b"%d" % number)
        if replays.begin(name, b"1", now) is None:
            if well:
                replays.keep(name, size, size, now)
                kept[number] = size
            else:
                replays.forget(name)
    found = 0
    for number in kept:
        answer = replays.begin(key(b"%d" % number), b"1", len(asked))
        assert answer in (None, kept[number])
        found += answer or 0
    assert found <= 100
