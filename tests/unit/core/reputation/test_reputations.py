"""Evidence in bounded memory: what is kept, and what an earlier run saw."""

from __future__ import annotations

import pytest

from lloom.core.identity import NodeId
from lloom.core.reputation import reputations as module
from lloom.core.reputation.evidence import Kind
from lloom.core.reputation.repeats import Repeats
from lloom.core.reputation.reputations import Reputations
from lloom.core.reputation.score import UNKNOWN

A, B = NodeId(bytes([1]) * 20), NodeId(bytes([2]) * 20)


def lies(book: Reputations, executor: NodeId, times: int = 20, now: float = 0.0) -> None:
    for _ in range(times):
        book.note(executor, "m", Kind.COUNT, now, right=False)


def test_who_lies_with_one_model_is_doubted_with_all_and_believed_again_in_time() -> None:
    book = Reputations(100.0)
    lies(book, A)
    assert book.score(A, 0.0).doubted
    assert book.score(B, 0.0).value == UNKNOWN
    assert not book.score(A, 400.0).doubted, "no ban is for ever"
    assert book.score(A, 2000.0).honesty == 1.0


def test_a_score_follows_what_is_seen_and_said_at_once() -> None:
    book = Reputations(100.0)
    assert book.score(A, 0.0).value == UNKNOWN
    book.said(A, 0.75)
    assert book.score(A, 0.0).value == 0.75
    lies(book, A)
    assert book.score(A, 0.0).value < 0.3


def test_what_an_earlier_run_saw_is_added_to_what_this_one_sees() -> None:
    before, after = Reputations(100.0), Reputations(100.0)
    lies(before, A, 10)
    before.answered(A, "m", 2.0, 0.0)
    rows = before.changed()
    assert [(row.executor, row.model) for row in rows] == [(A, "m")]
    assert before.changed() == []
    lies(after, A, 10, now=1.0)
    after.recall(rows)
    assert after.evidence(A, 1.0).wrong[Kind.COUNT] == pytest.approx(10 + 10 * 0.5**0.01)
    assert after.pace(A, "m") == (pytest.approx(2.0), None)
    [row] = after.changed()
    assert row.known.wrong[Kind.COUNT] > 19, "the total is what is kept"


def test_what_was_only_read_need_not_be_written() -> None:
    before, after = Reputations(100.0), Reputations(100.0)
    lies(before, A)
    after.recall(before.changed())
    assert after.changed() == []
    assert after.score(A, 0.0).doubted


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EXECUTORS", 2)
    monkeypatch.setattr(module, "MAX_MODELS", 2)
    book = Reputations(100.0)
    for number in range(3):
        book.note(NodeId(bytes([number]) * 20), "m", Kind.ANSWER, 0.0, right=True)
    for name in ("a", "b", "c"):
        book.note(B, name, Kind.ANSWER, 0.0, right=True)
    assert book.standings(0.0).total() == 2
    assert {row.model for row in book.changed() if row.executor == B} == {"b", "c"}


def test_the_same_words_are_noticed_for_another_question_only() -> None:
    repeats = Repeats()
    assert not repeats.again(A, "m", b"q1", b"a")
    assert not repeats.again(A, "m", b"q1", b"a"), "the same question"
    assert repeats.again(A, "m", b"q2", b"a")
    assert not repeats.again(A, "m", b"q3", b"b")
    assert not repeats.again(A, "n", b"q4", b"a"), "another model"
    assert not repeats.again(B, "m", b"q4", b"a"), "another executor"
    for number in range(8):
        repeats.again(A, "m", b"%d" % number, b"%d" % number)
    assert not repeats.again(A, "m", b"q9", b"a"), "long ago"
