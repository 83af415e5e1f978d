"""Rounds: everybody has a turn, the new ones first, those that fail less often."""

from __future__ import annotations

import math

from lloom.core.identity import NodeId
from lloom.core.rounds import Rounds

A, B, C = (NodeId(bytes([number]) * 20) for number in (1, 2, 3))


def test_the_new_come_first_then_who_waited_longest() -> None:
    rounds = Rounds(100)
    assert rounds.next([A], 5) == A
    rounds.began(A)
    rounds.ended(A, True, 10)
    assert rounds.next([A, B], 11) == B
    rounds.began(B)
    rounds.ended(B, True, 20)
    assert rounds.next([A, B], 109) is None
    assert rounds.wait(109) == 1
    assert rounds.next([A, B], 130) == A


def test_who_has_its_turn_is_not_due_again_before_it_ended() -> None:
    rounds = Rounds(100)
    rounds.began(A)
    assert rounds.next([A], 1e9) is None
    assert rounds.wait(0) == math.inf


def test_who_fails_is_looked_at_less_often_and_one_success_makes_up_for_it() -> None:
    rounds = Rounds(100)
    due = []
    for _ in range(6):
        rounds.began(A)
        rounds.ended(A, False, 0)
        due.append(rounds.wait(0))
    assert due == [100, 200, 400, 800, 800, 800]
    rounds.ended(A, True, 0)
    assert rounds.wait(0) == 100


def test_who_is_gone_is_forgotten_and_is_new_when_it_comes_back() -> None:
    rounds = Rounds(100)
    rounds.began(A)
    rounds.ended(A, False, 0)
    assert rounds.next([C], 1) == C
    assert rounds.next([A], 2) == A


def test_nobody_is_due_where_nobody_is() -> None:
    assert Rounds(100).next([], 5) is None
    assert Rounds(100).wait(5) == 100
