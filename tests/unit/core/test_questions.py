"""Questions of probes: ordinary, always others, as long as wanted."""

from __future__ import annotations

from random import Random

import pytest

from lloom.core import questions, tokens


def test_questions_differ() -> None:
    rng = Random(1)
    assert len({questions.question(rng, 32) for _ in range(200)}) == 200


@pytest.mark.parametrize("wanted", [64, 512, 4096])
def test_a_long_text_is_nearly_as_long_as_wanted_and_never_twice_that(wanted: int) -> None:
    text = questions.long_question(Random(wanted), wanted, 32).text
    assert 0.75 * wanted <= tokens.count(text, "o200k_base") <= 1.3 * wanted + 20


def test_long_texts_differ() -> None:
    rng = Random(1)
    assert len({questions.long_question(rng, 100, 32) for _ in range(100)}) == 100


def test_answers_may_be_as_long_as_wanted_or_half_of_that() -> None:
    rng = Random(1)
    asked = [
        make(rng) for make in (lambda r: questions.question(r, 32), lambda r: questions.long_question(r, 64, 32)) * 50
    ]
    assert {question.tokens for question in asked} <= set(range(16, 33))
    assert len({question.seed for question in asked}) == len(asked)
