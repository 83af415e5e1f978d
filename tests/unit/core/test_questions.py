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
    text = questions.long_text(Random(wanted), wanted)
    assert 0.75 * wanted <= tokens.count(text, "o200k_base") <= 1.3 * wanted + 20


def test_long_texts_differ() -> None:
    rng = Random(1)
    assert len({questions.long_text(rng, 100) for _ in range(100)}) == 100
