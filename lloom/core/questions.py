"""Ordinary questions, always others: what a probe asks, so that nobody can tell it from a user's. It draws from a given rng."""

from __future__ import annotations

from random import Random
from typing import Final

_SUBJECTS: Final = (
    "gravity", "bread", "tides", "rainbows", "inflation", "vaccines", "bicycles", "glaciers", "jazz", "chess",
    "photosynthesis", "earthquakes", "compound interest", "the printing press", "coffee", "migratory birds",
    "concrete", "sleep", "magnets", "the Silk Road", "fermentation", "bridges", "maps", "black holes", "honey",
    "sailing", "alphabets", "soap", "volcanoes", "the stock market", "cameras", "penguins", "cheese", "elections",
)  # fmt: skip
_ASKING: Final = (
    "Explain {} in one sentence.",
    "What is the most surprising thing about {}?",
    "How would you describe {} to a child?",
    "Why does {} matter?",
    "Give me a short summary of {}.",
    "Tell me something about {} that few people know.",
    "Write two lines about {}.",
    "What should a beginner know about {}?",
)
_SAYING: Final = (
    "I have been reading about {} lately.",
    "A friend of mine knows a lot about {}.",
    "Yesterday we talked about {} over dinner.",
    "There was a long article on {} in the paper.",
    "My notes on {} are a mess.",
    "Nobody in my family cares about {}, but I do.",
    "The chapter on {} was the best of the book.",
    "In school they never mentioned {}.",
)
_WORDS_PER_TOKEN: Final = 0.7
"""English prose has about four words for five tokens; a little less here, so that a text is not longer than asked for."""


def question(rng: Random) -> str:
    """One short question."""
    return rng.choice(_ASKING).format(rng.choice(_SUBJECTS))


def long_question(rng: Random, tokens: int) -> str:
    """A question at the end of about `tokens` tokens of small talk."""
    sentences: list[str] = []
    words = 0
    while words < tokens * _WORDS_PER_TOKEN:
        sentences.append(rng.choice(_SAYING).format(rng.choice(_SUBJECTS)))
        words += len(sentences[-1].split())
    return " ".join([*sentences, question(rng)])
