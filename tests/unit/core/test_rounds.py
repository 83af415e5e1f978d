"""Rounds: everybody has a turn; strangers, however many, take them neither from those that are well nor from each other."""

from __future__ import annotations

import math

from lloom.core.identity import NodeId
from lloom.core.rounds import Rounds

A, B, C = (NodeId(bytes([number]) * 20) for number in (1, 2, 3))
HERE, THERE = "here", "there"


def among(*executors: NodeId) -> dict[NodeId, str]:
    return dict.fromkeys(executors, HERE)


def stranger(number: int) -> NodeId:
    return NodeId(number.to_bytes(20, "big"))


def test_the_new_come_first_then_who_waited_longest() -> None:
    rounds = Rounds(100)
    assert rounds.next(among(A), 5) == A
    rounds.ended(A, True, 10)
    assert rounds.next(among(A, B), 11) == B
    rounds.ended(B, True, 20)
    assert rounds.next(among(A, B), 109) is None
    assert rounds.wait(109) == 1
    assert rounds.next(among(A, B), 130) == A


def test_who_has_its_turn_is_not_due_again_before_it_ended() -> None:
    rounds = Rounds(100)
    assert rounds.next(among(A), 0) == A
    assert rounds.next(among(A), 1e9) is None
    assert rounds.wait(0) == math.inf


def test_who_fails_is_looked_at_less_often_and_one_success_makes_up_for_it() -> None:
    rounds = Rounds(100)
    due = []
    for _ in range(6):
        rounds.ended(A, False, 0)
        due.append(rounds.wait(0))
    assert due == [100, 200, 400, 800, 800, 800]
    rounds.ended(A, True, 0)
    assert rounds.wait(0) == 100


def test_who_is_gone_is_forgotten_and_is_new_when_it_comes_back() -> None:
    rounds = Rounds(100)
    assert rounds.next(among(A), 0) == A
    rounds.ended(A, False, 0)
    assert rounds.next(among(C), 1) == C
    assert rounds.next(among(A), 2) == A


def test_nobody_is_due_where_nobody_is() -> None:
    assert Rounds(100).next({}, 5) is None
    assert Rounds(100).wait(5) == 100


def test_endless_strangers_do_not_make_those_wait_that_are_well() -> None:
    rounds = Rounds(100)
    for each in (A, B):
        rounds.ended(each, True, 0)
    turns = []
    for number in range(10):
        strangers = [stranger(10 * number + more) for more in range(10)]
        turns.append(rounds.next(among(A, B, *strangers), 100))
    assert [turns.index(each) for each in (A, B)] == [1, 3]


def test_endless_strangers_of_one_network_do_not_make_those_of_another_wait() -> None:
    rounds = Rounds(100)
    for number in range(50):
        rounds.next(among(stranger(number)), 0)
    crowd = among(*(stranger(1000 + number) for number in range(50)))
    newcomers = dict.fromkeys((A, B), THERE)
    turns = []
    for _ in range(4):
        turns.append(rounds.next({**crowd, **newcomers}, 1))
    assert {A, B} <= set(turns)
