from __future__ import annotations

import pytest

from lloom.core.copies import BESIDES
from lloom.core.errors import CallerFault
from lloom.core.replays import Key, Replays


def key(name: bytes) -> Key:
    return "alice", "/v1/chat/completions", name


def code(subject: Replays[str], *ask: object) -> str | None:
    with pytest.raises(CallerFault) as caught:
        subject.begin(*ask)  # type: ignore[arg-type]
    assert caught.value.status == 409
    return caught.value.code


def replays(limit: int = 8 * (BESIDES + 100)) -> Replays[str]:
    return Replays(limit, 60)


def made(subject: Replays[str], name: bytes, digest: bytes, data: bytes, now: float) -> None:
    """One is asked for that was not answered before, and gets an answer."""
    assert subject.begin(key(name), digest, now) is None
    copy = subject.copies.begin()
    subject.copies.add(copy, data)
    subject.keep(key(name), copy, name.decode(), now)


def answer(subject: Replays[str], name: bytes, digest: bytes, now: float) -> tuple[bytes, str] | None:
    found = subject.begin(key(name), digest, now)
    return None if found is None else (bytes(found[0].data), found[1])


def test_the_same_request_gets_the_same_answer_and_another_one_none() -> None:
    subject = replays()
    assert subject.begin(key(b"a"), b"1", 0) is None
    assert code(subject, key(b"a"), b"1", 1) == "idempotency_key_in_use"
    assert code(subject, key(b"a"), b"2", 1) == "idempotency_key_reused"
    copy = subject.copies.begin()
    subject.copies.add(copy, b"hello")
    subject.keep(key(b"a"), copy, "headers", 2)
    assert answer(subject, b"a", b"1", 3) == (b"hello", "headers")
    assert code(subject, key(b"a"), b"2", 3) == "idempotency_key_reused"
    assert subject.begin(("bob", *key(b"a")[1:]), b"1", 3) is None


def test_an_answer_that_was_not_made_is_made_anew() -> None:
    subject = replays()
    subject.begin(key(b"a"), b"1", 0)
    subject.forget(key(b"a"), subject.copies.begin())
    assert subject.copies.size == 0
    assert subject.begin(key(b"a"), b"1", 0) is None


def test_answers_are_kept_for_a_while() -> None:
    subject = replays()
    made(subject, b"a", b"1", b"hello", 10)
    assert answer(subject, b"a", b"1", 69) == (b"hello", "a")
    assert subject.begin(key(b"a"), b"2", 70) is None


def test_an_answer_that_is_not_kept_is_made_anew() -> None:
    for subject, size in ((replays(), 101), (replays(0), 0)):
        made(subject, b"a", b"1", bytes(size), 0)
        made(subject, b"a", b"2", bytes(size), 0)


def test_the_latest_answers_are_kept() -> None:
    subject = replays()
    for number in range(9):
        made(subject, b"%d" % number, b"1", bytes(100), 0)
    assert [answer(subject, b"%d" % number, b"1", 0) is None for number in range(9)] == [True] + [False] * 8
