"""What all lanes together may promise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.payment.promises import Ask, Raised, Totals, allow
from lloom.core.settings import PrepaySettings
from tests.money_support import accounting

SETTINGS = accounting(prepay=PrepaySettings(100, 300, 1.0), budget=1_000)
NOTHING = Totals(0, 0, 0)


def ask(least: int, best: int | None = None) -> Ask:
    return Ask(bytes(20), 0, least, least if best is None else best)


def test_a_ceiling_rises_as_far_as_there_is_room() -> None:
    assert allow(ask(10, 50), 0, False, NOTHING, 5_000, SETTINGS) == Raised(50)
    assert allow(ask(10, 50), 0, False, NOTHING, 26, SETTINGS) == Raised(12)
    assert allow(ask(10, 50), 0, False, NOTHING, 10, SETTINGS) == Raised(10)
    assert allow(ask(10, 50), 60, False, NOTHING, 0, SETTINGS) == Raised(60)
    assert allow(ask(10, 50), 20, False, NOTHING, 0, SETTINGS) == Raised(20)


@pytest.mark.parametrize(
    ("newcomer", "totals", "available", "code", "word"),
    [
        (False, NOTHING, None, "chain_away", "server"),
        (False, NOTHING, 0, "no_funds", "command=deposit"),
        (False, Totals(0, 0, 95), 100, "no_funds", "command=deposit"),
        (False, Totals(0, 995, 0), 10_000, "budget", "accounting.budget"),
        (True, Totals(295, 295, 0), 10_000, "prepay_limit", "accounting.prepay.newcomers"),
    ],
)
def test_what_forbids_it_is_said(newcomer: bool, totals: Totals, available: int | None, code: str, word: str) -> None:
    raised = allow(ask(10), 0, newcomer, totals, available, SETTINGS)
    assert (raised.ceiling, raised.code) == (0, code)
    assert word in raised.problem


def test_what_is_left_is_shared_by_many_lanes() -> None:
    """A deposit smaller than what lanes would like to have at hand is not all taken by the first one."""
    owing, ceilings = 0, []
    for _ in range(12):
        raised = allow(ask(10, 100), 0, False, Totals(0, 0, owing), 600, SETTINGS)
        ceilings.append(raised.ceiling)
        owing += raised.ceiling
    assert min(ceilings) >= 10
    assert sorted(ceilings, reverse=True) == ceilings


def test_who_has_delivered_is_no_newcomer() -> None:
    assert allow(ask(10), 0, False, Totals(300, 300, 0), 10_000, SETTINGS) == Raised(10)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 400), st.integers(0, 400), st.booleans()), max_size=60))
def test_no_row_of_raises_exceeds_any_limit(raises: list[tuple[int, int, int, bool]]) -> None:
    ceilings: dict[int, int] = {}
    newcomers = 0
    recent = 0
    for lane, least, more, old in raises:
        before = ceilings.get(lane, 0)
        totals = Totals(newcomers, recent, sum(ceilings.values()))
        raised = allow(ask(least, least + more), before, not old, totals, 700, SETTINGS)
        assert raised.ceiling >= before
        assert bool(raised.code) == (raised.ceiling < least)
        ceilings[lane] = raised.ceiling
        recent += raised.ceiling - before
        newcomers += 0 if old else raised.ceiling - before
    assert sum(ceilings.values()) <= 700
    assert newcomers <= 300
    assert recent <= 1_000
