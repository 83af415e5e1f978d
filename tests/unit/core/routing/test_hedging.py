from __future__ import annotations

from random import Random

from lloom.core.routing.hedging import Hedging
from lloom.core.routing.outcomes import Outcomes
from tests.unit.core.routing.test_outcomes import HERE


def known(*waits: float) -> Outcomes:
    outcomes = Outcomes(memory=100.0, rest=5.0)
    for wait in waits:
        outcomes.answered(HERE, wait, 0.0)
    return outcomes


def test_a_request_is_hedged_once_it_is_later_than_nearly_all_others_were() -> None:
    waits = [0.1 * number for number in range(1, 41)]
    Random(1).shuffle(waits)
    hedging = Hedging(1.0, known(*waits))
    hedging.asked()
    assert hedging.delay(HERE, 0.0) == 3.8000000000000003


def test_nobody_is_hedged_whose_tail_is_not_known_lately() -> None:
    hedging = Hedging(1.0, known(*[1.0] * 19))
    hedging.asked()
    assert hedging.delay(HERE, 0.0) is None
    hedging = Hedging(1.0, known(*[1.0] * 20))
    hedging.asked()
    assert hedging.delay(HERE, 0.0) == 1.0
    assert hedging.delay(HERE, 1000.0) is None


def test_the_share_is_never_passed() -> None:
    hedging, taken = Hedging(0.05, known(*[1.0] * 20)), 0
    for number in range(1, 2001):
        hedging.asked()
        if hedging.delay(HERE, 0.0) is not None and hedging.take():
            taken += 1
        assert taken <= 0.05 * number + 1e-6
    assert taken == hedging.taken >= 99


def test_after_a_quiet_time_few_follow_each_other() -> None:
    hedging = Hedging(0.05, known(*[1.0] * 20))
    for _ in range(10_000):
        hedging.asked()
    assert sum(hedging.take() for _ in range(100)) == 10


def test_with_no_share_nothing_is_hedged() -> None:
    hedging = Hedging(0.0, known(*[1.0] * 20))
    for _ in range(100):
        hedging.asked()
        assert hedging.delay(HERE, 0.0) is None
        assert not hedging.take()
