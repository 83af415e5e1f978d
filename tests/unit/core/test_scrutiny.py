"""All executors get the same question, none twice; what they answer adds up to evidence."""

from __future__ import annotations

import math
from random import Random

import pytest

from lloom.core.honesty import Conduct
from lloom.core.identity import NodeId
from lloom.core.odds import LIKELIEST, Place
from lloom.core.panel import Said, words
from lloom.core.scrutiny import Scrutiny

A, B, C, D, E = (NodeId(bytes([number]) * 20) for number in range(1, 6))
PERIOD = 600.0


def scrutiny(logprobs: float = 0.0) -> Scrutiny:
    return Scrutiny(Random(1), PERIOD, 32, logprobs)


def said(text: str = "It is the one force that nobody can do without.", tokens: int = 12, **changes: float) -> Said:
    return Said(words(text), tokens, changes.get("seconds", 1.0), int(changes.get("claimed", tokens)))


def test_in_one_period_all_are_asked_the_same_and_nobody_twice() -> None:
    its = scrutiny()
    first = its.ask(A, "m", 0)
    assert its.ask(B, "m", PERIOD / 2) is first
    assert its.ask(A, "m", PERIOD / 2) != first
    assert its.ask(C, "other", 0) != first
    assert its.ask(A, "m", PERIOD) != first
    assert 16 <= first.tokens <= 32


def test_who_answers_as_another_model_is_known_when_the_next_question_comes() -> None:
    its = scrutiny()
    for period in range(5):
        for who in (A, B, C, D, E):
            asked = its.ask(who, "m", period * PERIOD)
            text = (
                f"Whatever {period} you like to know of it I will not say."
                if who is E
                else f"So {asked.text} is the question here?"
            )
            its.answered(who, who.hex(), "m", asked, said(text))
    assert its.conduct(E, "m") == Conduct(answers=5, compared=4, differed=4)
    assert its.conduct(E, "m").doubts()
    assert its.conduct(A, "m") == Conduct(answers=5, compared=4)
    assert its.conduct(A, "other") == Conduct()


def test_answers_to_questions_of_ones_own_are_not_compared() -> None:
    its = scrutiny()
    for who in (A, B, C, D):
        its.ask(who, "m", 0)
        its.answered(who, who.hex(), "m", its.ask(who, "m", 1), said())
    its.ask(A, "m", PERIOD)
    assert its.conduct(A, "m") == Conduct(answers=1)


def test_constant_padded_and_instant_answers_are_counted() -> None:
    its = scrutiny()
    for period in range(3):
        its.answered(A, "", "m", its.ask(A, "m", period * PERIOD), said())
        its.answered(
            B,
            "",
            "m",
            its.ask(B, "m", period * PERIOD),
            said(f"{period} is what I say and so say others too.", claimed=41),
        )
        its.answered(
            C,
            "",
            "m",
            its.ask(C, "m", period * PERIOD),
            said(f"{period} is what I say and so say others too.", claimed=40),
        )
        its.answered(
            D,
            "",
            "m",
            its.ask(D, "m", period * PERIOD),
            said(f"{period} is what I say and so say others too.", seconds=0.001),
        )
    assert its.conduct(A, "m") == Conduct(answers=3, repeated=2)
    assert its.conduct(B, "m") == Conduct(answers=3, miscounted=3)
    assert its.conduct(C, "m") == Conduct(answers=3)
    assert its.conduct(D, "m") == Conduct(answers=3, hurried=3)


def test_who_is_gone_is_forgotten() -> None:
    its = scrutiny()
    first = its.ask(A, "m", 0)
    its.answered(A, "", "m", first, said())
    its.keep({B})
    assert its.conduct(A, "m") == Conduct()
    assert its.ask(B, "m", 1) != first


def test_likelihoods_are_asked_of_all_or_of_none_in_one_period_and_as_often_as_is_wanted() -> None:
    its = scrutiny(0.5)
    periods = [{its.ask(who, "m", number * PERIOD).logprobs for who in (A, B, C)} for number in range(200)]
    assert {len(period) for period in periods} == {1}
    assert 70 <= sum(period == {LIKELIEST} for period in periods) <= 130
    for share, asked in ((0.0, 0), (1.0, LIKELIEST)):
        again = scrutiny(share)
        assert {again.ask(A, "m", now).logprobs for now in (0, 1, PERIOD)} == {asked}


VOCABULARY = tuple(f"word{number}" for number in range(40))


def logits(model: str, question: str, place: int) -> list[float]:
    """What a model makes of a question at a place where all that was said before is the same."""
    rng = Random(f"{model} {question} {place}")
    return [rng.gauss(0, 2.5) for _ in VOCABULARY]


def likely(model: str, question: str, place: int, noise: float, rng: Random) -> dict[str, float]:
    """Its probabilities on a machine that adds some noise; a name `a~b` is a model that has much of `a`."""
    name, _, other = model.partition("~")
    own = logits(name, question, place)
    if other:
        own = [0.8 * ours + 0.6 * theirs for ours, theirs in zip(own, logits(other, question, place), strict=True)]
    weights = [math.exp(each + rng.gauss(0, noise)) for each in own]
    return {word: weight / sum(weights) for word, weight in zip(VOCABULARY, weights, strict=True)}


def speaks(model: str, words_of: str, question: str, noise: float, rng: Random) -> Said:
    """An answer whose words are those that `words_of` would choose, and whose likelihoods are those of `model`."""
    places, text = [], []
    for number in range(12):
        chosen = likely(words_of, question, number, noise, rng)
        word = max(chosen, key=lambda each: chosen[each])
        found = chosen if model == words_of else likely(model, question, number, noise, rng)
        best = sorted(found, key=lambda each: -found[each])[:LIKELIEST]
        told = {each.encode(): found[each] for each in {*best, word}}
        places.append(Place(word.encode(), told, found[best[-1]]))
        text.append(word)
        if word != max(
            VOCABULARY, key=dict(zip(VOCABULARY, logits(words_of, question, number), strict=True)).__getitem__
        ):
            break  # from here on it goes another way
    rest = [rng.choice(VOCABULARY) for _ in range(12 - len(text))]
    return Said(tuple(text + rest), 12, 1.0, 12, tuple(places))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_noise_makes_nobody_suspected_and_another_model_with_the_same_words_is(noise: float, seed: int) -> None:
    rng = Random(f"{seed} {noise}")
    its = Scrutiny(rng, PERIOD, 32, 0.5)
    for period in range(40):
        for who in (A, B, C, D, E):
            asked = its.ask(who, "m", period * PERIOD)
            said = speaks("true~cheap" if who is E else "true", "true", asked.text, noise, rng)
            told = said if asked.logprobs else Said(said.words, said.tokens, said.seconds, said.claimed)
            its.answered(who, who.hex(), "m", asked, told)
            assert who is E or not its.conduct(who, "m").doubts()
    assert its.conduct(E, "m").doubts() == ("answers as another model would",)
