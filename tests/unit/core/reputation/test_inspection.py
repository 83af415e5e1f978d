"""What answers tell beside their tokens, of real requests."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lloom.core.api.chat import parse
from lloom.core.api.request import ApiRequest
from lloom.core.identity import NodeId
from lloom.core.reputation.evidence import Kind
from lloom.core.reputation.inspection import Inspection
from lloom.core.reputation.reputations import Reputations

EXECUTOR = NodeId(bytes([1]) * 20)
LONG = "It is hard to say what anybody would answer to that. " * 8


class Subject:
    def __init__(self) -> None:
        self.book = Reputations(1e6)
        self.inspection = Inspection(self.book, bytes(32))

    def look(self, text: str = LONG, seconds: float = 5.0, question: str = "why?", **fields: Any) -> None:
        self.inspection.look(EXECUTOR, "m", request(question, **fields), text, seconds, 0.0)

    def seen(self, kind: Kind) -> tuple[float, float]:
        known = self.book.evidence(EXECUTOR, 0.0)
        return known.right[kind], known.wrong[kind]


def request(question: str, **fields: Any) -> ApiRequest:
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": question}]
    return parse(msgspec.json.encode({"model": "m", "messages": messages, **fields}))


@pytest.fixture
def subject() -> Subject:
    return Subject()


def test_the_same_words_to_another_question_are_noted(subject: Subject) -> None:
    for question in ("why?", "how?", "where?"):
        subject.look(question=question)
    assert subject.seen(Kind.WORDS) == (1, 2)


def test_who_asks_the_same_again_may_get_the_same_answer(subject: Subject) -> None:
    subject.look()
    subject.look(temperature=0, max_tokens=200, user="me")
    assert subject.seen(Kind.WORDS) == (2, 0)


@pytest.mark.parametrize("text", ["", "Yes, of course.", LONG[:127]])
def test_short_answers_tell_nothing(subject: Subject, text: str) -> None:
    for question in ("why?", "how?"):
        subject.look(text, seconds=0.0, question=question)
    assert subject.seen(Kind.WORDS) == subject.seen(Kind.SPEED) == (0, 0)


def test_what_no_machine_computes_is_too_fast_and_choices_are_written_side_by_side(subject: Subject) -> None:
    tokens = len(LONG) / 4
    subject.look(seconds=tokens / 4000)
    assert subject.seen(Kind.SPEED) == (1, 0)
    subject.look(seconds=tokens / 8000)
    assert subject.seen(Kind.SPEED) == (1, 1)
    subject.look(seconds=tokens / 8000, n=2)
    assert subject.seen(Kind.SPEED) == (2, 1)


def test_a_huge_request_is_not_read(subject: Subject) -> None:
    subject.look(question="x" * 300_000)
    assert subject.seen(Kind.WORDS) == (0, 0)


def test_no_text_is_kept(subject: Subject) -> None:
    subject.look(question="zebrafish")
    marks = repr([list(each) for each in subject.inspection._repeats._latest.values()])
    assert "zebrafish" not in marks
    assert LONG[:8] not in marks
