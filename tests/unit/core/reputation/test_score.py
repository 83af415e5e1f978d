"""A score rises and falls with evidence, within bounds, whoever says what."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from lloom.core.reputation.evidence import Evidence, Kind
from lloom.core.reputation.score import FLOOR, RULES, UNKNOWN, judge

counts = st.floats(0, 10_000)
sixes = st.tuples(*[counts] * len(Kind))
known = st.builds(Evidence, st.just(0.0), sixes, sixes)
shares = st.floats(0, 1)


def evidence(kind: Kind, right: float, wrong: float) -> Evidence:
    ways = [tuple(count if each is kind else 0.0 for each in Kind) for count in (right, wrong)]
    return Evidence(0.0, *ways)


def more(one: Evidence, kind: Kind, *, right: bool) -> Evidence:
    name = "right" if right else "wrong"
    sums = tuple(count + (each is kind) for each, count in zip(Kind, getattr(one, name), strict=True))
    return replace(one, **{name: sums})


def test_who_is_unknown_is_what_others_say() -> None:
    for said in (0.0, 0.25, UNKNOWN, 0.75, 1.0):
        assert judge(Evidence(0.0), said).value == said


@given(known, shares)
def test_scores_have_bounds(one: Evidence, said: float) -> None:
    score = judge(one, said)
    assert 0 <= score.value <= score.honesty <= 1
    assert 0 <= score.regard <= score.honesty
    assert score.honesty >= FLOOR
    assert bool(score.reasons) == (score.honesty < 1)


@given(known, shares, st.sampled_from(Kind))
def test_one_more_wrong_never_helps_and_one_more_right_never_harms(one: Evidence, said: float, kind: Kind) -> None:
    before = judge(one, said).value
    assert judge(more(one, kind, right=False), said).value <= before + 1e-9
    assert judge(more(one, kind, right=True), said).value >= before - 0.006, "but for losses too small to be told"


@given(known, shares, st.sampled_from(list(RULES)))
def test_one_kind_of_wrong_costs_no_more_than_its_share(one: Evidence, said: float, kind: Kind) -> None:
    rule = RULES[kind]
    clean = replace(
        one, wrong=tuple(0.0 if each is kind else count for each, count in zip(Kind, one.wrong, strict=True))
    )
    assert judge(one, said).honesty >= min(judge(clean, said).honesty * (1 - rule.cost), FLOOR) - 1e-9


@given(shares, shares)
def test_whatever_is_said_of_a_well_known_one_it_moves_little(one: float, other: float) -> None:
    good = evidence(Kind.ANSWER, 99.0, 1.0)
    assert abs(judge(good, one).value - judge(good, other).value) < 0.06
    assert judge(good, 0.0).value > 0.9


def test_our_own_answers_refute_what_others_say_and_do_not_count_twice() -> None:
    good, bad = evidence(Kind.ANSWER, 99.0, 1.0), evidence(Kind.ANSWER, 1.0, 99.0)
    assert judge(good, 0.25).regard == judge(good, UNKNOWN).regard == judge(bad, 0.75).regard == UNKNOWN
    assert judge(good, 0.75).regard == 0.75
    assert judge(bad, 0.25).regard == 0.25


def test_more_evidence_makes_surer() -> None:
    values = [judge(evidence(Kind.ANSWER, float(count), 0.0), UNKNOWN).value for count in (1, 4, 16, 64, 256)]
    assert values == sorted(values)
    assert values[0] == UNKNOWN, "one lucky answer says nothing"
    assert values[-1] > 0.98
    fails = [judge(evidence(Kind.ANSWER, 0.0, float(count)), UNKNOWN).value for count in (1, 4, 16, 64)]
    assert fails == sorted(fails, reverse=True)


def test_one_miscount_costs_a_little_and_always_miscounting_most() -> None:
    assert judge(evidence(Kind.COUNT, 99.0, 1.0), UNKNOWN).honesty > 0.98
    tenth = judge(evidence(Kind.COUNT, 90.0, 10.0), UNKNOWN)
    assert 0.7 < tenth.honesty < 0.8
    assert not tenth.doubted
    first = judge(evidence(Kind.COUNT, 0.0, 1.0), UNKNOWN)
    assert 0.8 < first.honesty < 0.9
    assert not first.doubted
    always = judge(evidence(Kind.COUNT, 0.0, 50.0), UNKNOWN)
    assert always.doubted
    assert always.reasons == ("claims more tokens than arrive (50.0 of 50.0): -74%",)


def test_what_happens_to_the_honest_as_well_is_no_suspicion_below_every_other_answer() -> None:
    assert judge(evidence(Kind.WORDS, 50.0, 50.0), UNKNOWN).honesty == 1.0
    assert judge(evidence(Kind.SPEED, 0.0, 3.0), UNKNOWN).honesty == 1.0
    assert judge(evidence(Kind.WORDS, 2.0, 50.0), UNKNOWN).honesty < 0.7
