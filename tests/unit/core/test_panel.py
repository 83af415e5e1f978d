"""Who answers as no other does; and that neither another machine, nor few others, nor many identities of one make that so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.identity import NodeId
from lloom.core.odds import Place
from lloom.core.panel import ALIKE, Panel, Said, Verdict, similarity, words

HONEST = (
    "Gravity is the force by which a planet or other body draws objects toward its center, and keeps us on the ground."
)
OTHER_MACHINE = (
    "Gravity is the force by which a planet or other body pulls things toward its middle, and keeps us on the ground."
)
ANOTHER_MODEL = (
    "Sure! Think of a stretched sheet with a heavy ball on it: whatever rolls nearby will bend its path to the ball."
)
TEXT = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12)


def said(text: str, seconds: float = 1.0, *probabilities: float) -> Said:
    """`probabilities`: how likely each of its first tokens was."""
    places = tuple(Place(str(at).encode(), {str(at).encode(): each}, 0.0) for at, each in enumerate(probabilities))
    return Said(words(text), 24, seconds, 0, places)


def who(number: int) -> NodeId:
    return NodeId(bytes([number]) * 20)


def panel(*answers: Said, networks: list[str] | None = None) -> dict[int, Verdict]:
    """Verdicts by the number of the answer; each comes from a network of its own unless told otherwise."""
    made = Panel()
    for number, answer in enumerate(answers):
        made.add(who(number), networks[number] if networks else str(number), answer)
    return {executor[0]: verdict for executor, verdict in made.verdicts().items()}


def test_another_model_differs_from_all_others_and_another_machine_does_not() -> None:
    found = panel(said(HONEST), said(HONEST), said(OTHER_MACHINE), said(OTHER_MACHINE), said(ANOTHER_MODEL))
    assert {number for number, verdict in found.items() if verdict.differed} == {4}
    assert len(found) == 5


def test_three_others_are_needed() -> None:
    assert panel(said(HONEST), said(HONEST), said(ANOTHER_MODEL)) == {}


def test_where_the_others_do_not_agree_nobody_is_told_from_them() -> None:
    texts = (
        HONEST,
        ANOTHER_MODEL,
        "I would begin with bread, since everybody knows it.",
        "No idea, sorry, ask me tomorrow again.",
    )
    assert panel(*map(said, texts)) == {}


def test_many_identities_of_one_network_have_one_voice() -> None:
    liars, honest = [said(ANOTHER_MODEL)] * 20, [said(HONEST)] * 4
    found = panel(*liars, *honest, networks=["one"] * 20 + ["a", "b", "c", "d"])
    assert {number for number, verdict in found.items() if verdict.differed} == set(range(20))
    assert set(found) == set(range(24))


def test_short_answers_have_no_voice_and_are_judged_all_the_same() -> None:
    found = panel(said("Yes."), said("Yes."), said("Yes."), said("Yes."), *[said(HONEST)] * 4)
    assert [found[number].differed for number in range(8)] == [True] * 4 + [False] * 4
    assert panel(*[said("Yes.")] * 8) == {}


def test_who_is_faster_by_far_than_all_others_computes_nothing() -> None:
    found = panel(*[said(HONEST, 1.0)] * 4, said(HONEST, 0.1), said(HONEST, 0.01))
    assert [found[number].hurried for number in range(6)] == [False] * 5 + [True]


LIKELY, A_LITTLE_LESS, SURE = (0.6, 0.4, 0.5, 0.7), (0.58, 0.43, 0.47, 0.69), (0.99, 0.98, 0.97, 0.99)


def apart(found: dict[int, Verdict]) -> dict[int, bool | None]:
    return {number: verdict.apart for number, verdict in found.items()}


def test_another_model_with_the_same_words_is_apart_and_another_machine_is_not() -> None:
    found = panel(*[said(HONEST, 1.0, *LIKELY)] * 3, said(OTHER_MACHINE, 1.0, *A_LITTLE_LESS), said(HONEST, 1.0, *SURE))
    assert apart(found) == {0: False, 1: False, 2: False, 3: False, 4: True}
    assert not any(verdict.differed for verdict in found.values())


def test_to_be_like_one_of_those_who_agree_is_enough() -> None:
    found = panel(*(said(HONEST, 1.0, *[each] * 4) for each in (0.5, 0.5, 0.65, 0.85)))
    assert apart(found)[3] is False


def test_who_tells_no_likelihoods_is_judged_by_words_alone() -> None:
    found = panel(*[said(HONEST, 1.0, *LIKELY)] * 4, said(HONEST), said(ANOTHER_MODEL))
    assert apart(found) == {0: False, 1: False, 2: False, 3: False, 4: None, 5: None}
    assert [found[number].differed for number in range(6)] == [False] * 5 + [True]


def test_three_others_are_needed_for_likelihoods_too() -> None:
    found = panel(*[said(HONEST, 1.0, *LIKELY)] * 2, said(HONEST), said(HONEST), said(HONEST, 1.0, *SURE))
    assert set(apart(found).values()) == {None}


def test_many_identities_of_one_network_have_one_voice_about_likelihoods() -> None:
    liars, honest = [said(HONEST, 1.0, *SURE)] * 20, [said(HONEST, 1.0, *LIKELY)] * 4
    found = panel(*liars, *honest, networks=["one"] * 20 + ["a", "b", "c", "d"])
    assert apart(found) == {number: number < 20 for number in range(24)}


def test_where_likelihoods_are_not_of_one_mind_nobody_is_told_from_them() -> None:
    found = panel(*[said(HONEST, 1.0, *LIKELY)] * 2, *[said(HONEST, 1.0, *SURE)] * 2)
    assert set(apart(found).values()) == {None}


def test_likelihoods_are_compared_where_words_part_too_early_to_be() -> None:
    texts = (
        HONEST,
        ANOTHER_MODEL,
        "I would begin with bread, since everybody knows it.",
        "No idea, sorry, ask me tomorrow again.",
    )
    found = panel(*(said(text, 1.0, *LIKELY) for text in texts))
    assert found == {number: Verdict(None, False, False) for number in range(4)}


@pytest.mark.parametrize(("text", "count"), [("It pulls, always!", 5), ("重力是力", 4), ("  \n", 0)])
def test_every_language_has_words(text: str, count: int) -> None:
    assert len(words(text)) == count


@given(TEXT, TEXT)
def test_similarity_is_the_same_both_ways_and_one_only_for_what_is_hardly_different(
    one: list[str], other: list[str]
) -> None:
    found = similarity(one, other)
    assert found == similarity(other, one)
    assert 0 <= found <= 1
    assert similarity(one, one) == 1
    if not set(one) & set(other) and (one or other):
        assert found == 0


@given(TEXT.filter(lambda text: len(text) > 6), st.integers(0, 11))
def test_a_word_that_differs_keeps_answers_alike(text: list[str], at: int) -> None:
    changed = list(text)
    changed[at % len(text)] = "other"
    assert similarity(text, changed) >= ALIKE
