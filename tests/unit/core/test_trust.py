"""Trust in validators: earned, lost, and forgotten; nobody is asked alone."""

from __future__ import annotations

from random import Random

from lloom.core.identity import NodeId
from lloom.core.trust import LIE_SECONDS, Trust

A, B, C = (NodeId(bytes([number]) * 20) for number in (1, 2, 3))


def test_a_stranger_is_asked() -> None:
    trust = Trust(600)
    assert trust.trusted(A, 0)
    assert trust.score(A, 0) == 0.5


def test_who_misleads_again_and_again_is_dropped_until_that_is_long_ago() -> None:
    trust = Trust(600)
    for _ in range(20):
        trust.misled(A, 0)
    assert not trust.trusted(A, 0)
    assert A not in trust.order([A, B], 0, Random(1))
    assert trust.trusted(A, 6000)


def test_a_mistake_now_and_then_is_forgiven() -> None:
    trust = Trust(600)
    for _ in range(10):
        trust.held(A, 0)
        trust.misled(A, 0)
    assert trust.trusted(A, 0)


def test_one_mistake_of_a_stranger_does_not_drop_it() -> None:
    trust = Trust(600)
    trust.misled(A, 0)
    trust.misled(A, 0)
    assert trust.trusted(A, 0)


def test_a_forgery_is_enough_and_no_good_word_makes_up_for_it() -> None:
    trust = Trust(600)
    for _ in range(100):
        trust.held(A, 0)
    trust.lied(A, 0)
    assert not trust.trusted(A, LIE_SECONDS - 1)
    assert trust.trusted(A, LIE_SECONDS)


def test_the_better_one_is_asked_first_mostly_and_the_others_sometimes() -> None:
    trust = Trust(600)
    for _ in range(20):
        trust.held(A, 0)
    for _ in range(3):
        trust.held(B, 0)
        trust.misled(B, 0)
    rng = Random(1)
    first = [trust.order([A, B, C], 0, rng)[0] for _ in range(1000)]
    assert first.count(A) > 450
    assert first.count(B) > 100
    assert first.count(C) > 100
