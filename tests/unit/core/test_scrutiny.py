"""All executors get the same question, none twice; what they answer adds up to evidence."""

from __future__ import annotations

from random import Random

from lloom.core.honesty import Conduct
from lloom.core.identity import NodeId
from lloom.core.panel import Said, words
from lloom.core.scrutiny import Scrutiny

A, B, C, D, E = (NodeId(bytes([number]) * 20) for number in range(1, 6))
PERIOD = 600.0


def scrutiny() -> Scrutiny:
    return Scrutiny(Random(1), PERIOD, 32)


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
