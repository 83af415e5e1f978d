"""Validators are judged by what becomes of requests; what they say counts little, and nothing from one alone."""

from __future__ import annotations

import asyncio

import pytest

from lloom.adapters.routing import witness
from lloom.adapters.routing.witness import Witness
from lloom.core.honesty import Conduct
from lloom.core.identity import NodeId
from lloom.core.offer import Endpoint
from lloom.core.reputation.hearsay import REACH
from lloom.core.reputation.score import UNKNOWN
from lloom.core.routing.outcomes import Outcomes
from lloom.core.trust import Trust
from lloom.core.vouch import Probe, Vouch

PRAISED, BLAMED = UNKNOWN + REACH, UNKNOWN - REACH
A, B, C, EXECUTOR, OTHER = (NodeId(bytes([number]) * 20) for number in range(1, 6))
HERE = Endpoint("127.0.0.1", 9000)


def says(validator: NodeId, good: bool, executor: NodeId = EXECUTOR) -> Vouch:
    return Vouch(validator, executor, 0, 1, (HERE,) if good else (), (Probe("m", True),) if good else ())


class Court:
    """A witness that knows some validators."""

    def __init__(self, *validators: NodeId) -> None:
        self.trust = Trust(600)
        self.outcomes = Outcomes(600, 5)
        self.witness = Witness(self.trust, self.outcomes.reputations, lambda: validators)

    def expected(self, executor: NodeId = EXECUTOR) -> float:
        """Of an executor that we never asked."""
        return self.outcomes.standing((executor, HERE, "m"), asyncio.get_running_loop().time()).hope

    def score(self, validator: NodeId) -> float:
        return self.trust.score(validator, asyncio.get_running_loop().time())


async def test_the_word_of_one_of_several_validators_moves_nobody() -> None:
    court = Court(A, B, C)
    court.witness.told(EXECUTOR, (says(A, True),))
    assert court.expected() == UNKNOWN
    court.witness.told(EXECUTOR, (says(A, False),))
    assert court.expected() == UNKNOWN


async def test_two_that_agree_count_unless_as_many_disagree() -> None:
    court = Court(A, B, C)
    court.witness.told(EXECUTOR, (says(A, True), says(B, True)))
    assert court.expected() == PRAISED
    court.witness.told(EXECUTOR, (says(A, True), says(B, True), says(C, False)))
    assert UNKNOWN < court.expected() < PRAISED
    court.witness.told(EXECUTOR, (says(A, False), says(B, False), says(C, True)))
    assert BLAMED < court.expected() < UNKNOWN


async def test_the_only_validator_is_listened_to() -> None:
    court = Court(A)
    court.witness.told(EXECUTOR, (says(A, True),))
    assert court.expected() == PRAISED
    court.witness.told(EXECUTOR, ())
    assert court.expected() == UNKNOWN, "it says so no more"


async def test_a_seller_that_nobody_had_money_to_ask_is_neither_praised_nor_blamed() -> None:
    court = Court(A)
    court.witness.told(EXECUTOR, (Vouch(A, EXECUTOR, 0, 1, (HERE,), ()),))
    assert court.expected() == UNKNOWN
    court.witness.experienced(EXECUTOR, answered=False)
    assert court.score(A) == 0.5, "it said nothing"


async def test_who_is_suspected_of_lying_is_not_praised_for_answering() -> None:
    court = Court(A, B)
    liar = Probe("m", True, conduct=Conduct(answers=8, compared=8, differed=8))
    accused = [Vouch(validator, EXECUTOR, 0, 1, (HERE,), (liar,)) for validator in (A, B)]
    court.witness.told(EXECUTOR, tuple(accused))
    assert court.expected() == BLAMED
    court.witness.told(EXECUTOR, (accused[0], says(B, True)))
    assert court.expected() == UNKNOWN, "one of two is not enough"
    court.witness.experienced(EXECUTOR, answered=True)
    assert court.score(A) > 0.5, "it did answer, as both said"


async def test_what_came_true_speaks_for_a_validator_and_what_did_not_against_it() -> None:
    court = Court(A, B)
    court.witness.told(EXECUTOR, (says(A, True), says(B, False)))
    court.witness.experienced(EXECUTOR, answered=True)
    assert court.score(A) > 0.5 > court.score(B)
    court.witness.experienced(EXECUTOR, answered=False)
    assert court.score(A) > 0.5 > court.score(B), "each statement is judged once"


async def test_a_validator_that_praises_the_dead_is_not_believed_in_the_end() -> None:
    court = Court(A)
    for _ in range(20):
        court.witness.told(EXECUTOR, (says(A, True),))
        court.witness.experienced(EXECUTOR, answered=False)
    court.witness.told(OTHER, (says(A, True, OTHER),))
    assert court.expected(OTHER) == UNKNOWN


async def test_of_too_many_executors_the_oldest_statements_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "_MAX_EXECUTORS", 1)
    court = Court(A)
    court.witness.told(EXECUTOR, (says(A, True),))
    court.witness.told(OTHER, (says(A, True, OTHER),))
    court.witness.experienced(EXECUTOR, answered=False)
    assert court.score(A) == 0.5
    court.witness.experienced(OTHER, answered=True)
    assert court.score(A) > 0.5
