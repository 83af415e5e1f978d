"""Ordinary questions, always others: what a probe asks, so that it looks like a user's. It draws from a given rng.

The sentences are public, as all of this is; so there are too many of them to keep answers for. Questions are open: whoever
answers two of them with the same words has not read them.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

_SUBJECTS: Final = (
    "gravity", "bread", "tides", "rainbows", "inflation", "vaccines", "bicycles", "glaciers", "jazz", "chess",
    "photosynthesis", "earthquakes", "compound interest", "the printing press", "coffee", "migratory birds",
    "concrete", "sleep", "magnets", "the Silk Road", "fermentation", "bridges", "maps", "black holes", "honey",
    "sailing", "alphabets", "soap", "volcanoes", "the stock market", "cameras", "penguins", "cheese", "elections",
)  # fmt: skip
_FIELDS: Final = (
    "history", "chemistry", "everyday use", "economics", "future", "hidden side", "beginnings", "place in art",
    "influence on towns", "role in wartime", "weak points", "physics", "vocabulary", "reputation",
)  # fmt: skip
_WHO: Final = (
    "my daughter", "a colleague", "my neighbour", "our teacher", "the man at the library", "an old friend", "my cousin",
    "a customer", "the tour guide", "my flatmate", "one of my students", "the doctor",
)  # fmt: skip
_ASKING: Final = (
    "Explain the {field} of {subject} in {number} sentences.",
    "What is the most surprising thing about {subject} and {other}?",
    "How would you describe the {field} of {subject} to {who}?",
    "Why does the {field} of {subject} matter for {other}?",
    "Give me a short summary of what {subject} and {other} have in common.",
    "Tell me something about the {field} of {subject} that few people know.",
    "Write {number} lines about {subject} for {who}.",
    "what should a beginner know about the {field} of {subject}",
    "I have {number} minutes to talk about {subject}, where do I start?",
    "Is there a link between {other} and the {field} of {subject}?",
    "Compare {subject} with {other} in {number} sentences, please.",
    "which {number} questions about the {field} of {subject} would you ask an expert?",
)
_SAYING: Final = (
    "I have been reading about {subject} lately.",
    "{who} knows a lot about {subject}.",
    "Yesterday we talked about {subject} over dinner for {number} hours.",
    "There was a long article on the {field} of {subject} in the paper.",
    "My notes on {subject} are a mess.",
    "Nobody in my family cares about {subject}, but I do.",
    "The chapter on {subject} was the best of the book.",
    "In school they never mentioned the {field} of {subject}.",
    "{who} mixes up {subject} and {other} all the time.",
    "I wrote {number} pages on {subject} once.",
)
_WORDS_PER_TOKEN: Final = 0.7
"""English prose has about four words for five tokens; a little less here, so that a text is not longer than asked for."""


@dataclass(frozen=True, slots=True)
class Question:
    """What one executor is asked, or several."""

    text: str
    tokens: int
    """The most that the answer may have."""
    seed: int
    logprobs: int = 0
    """Of so many tokens at each place the answer shall tell how likely they were, where the model can; 0: of none."""


def question(rng: Random, most: int) -> Question:
    """One short question, with an answer of `most` tokens, or down to half of that."""
    told = [_sentence(rng, _SAYING) for _ in range(rng.choice((0, 0, 1, 2)))]
    text = " ".join([*told, _sentence(rng, _ASKING)])
    return _limited(rng, text, most)


def long_question(rng: Random, tokens: int, most: int) -> Question:
    """A question at the end of about `tokens` tokens of small talk; its answer as for a short one."""
    sentences: list[str] = []
    words = 0
    while words < tokens * _WORDS_PER_TOKEN:
        sentences.append(_sentence(rng, _SAYING))
        words += len(sentences[-1].split())
    return _limited(rng, " ".join([*sentences, _sentence(rng, _ASKING)]), most)


def _limited(rng: Random, text: str, most: int) -> Question:
    return Question(text, rng.randint((most + 1) // 2, most), rng.randrange(1 << 31))


def _sentence(rng: Random, forms: tuple[str, ...]) -> str:
    subject, other = rng.sample(_SUBJECTS, 2)
    form = rng.choice(forms)
    said = form.format(
        subject=subject, other=other, field=rng.choice(_FIELDS), who=rng.choice(_WHO), number=rng.randint(2, 9)
    )
    return said[0].upper() + said[1:] if form.startswith("{") else said
