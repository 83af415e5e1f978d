"""An operator hears of a backend that counts otherwise than clients will: once an hour for each model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from loguru import logger

from lloom.adapters.serving.audit import LOOK_SECONDS, WARN_SECONDS, Audit
from tests.money_support import accounting
from tests.unit.adapters.routing_support import Clock


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def audit(clock: Clock) -> Audit:
    return Audit(accounting(tolerance=0.5, slack=64), clock)


@pytest.mark.parametrize("reported", [(10, 215), (10, 1000), (1000, 10)])
def test_too_many_and_too_few_are_told_with_the_models_name(
    audit: Audit, said: list[str], reported: tuple[int, int]
) -> None:
    counted = (10, 100) if reported[0] == 10 else (10, 10)
    audit.compare("big/model", "o200k_base", reported, counted)
    audit.compare("small", "o200k_base", counted, reported)
    assert ["big/model" in said[0], "small" in said[1]] == [True, True]


def test_what_tokenizers_differ_by_is_not_told(audit: Audit, said: list[str]) -> None:
    audit.compare("m", "o200k_base", (70, 214), (10, 100))
    audit.compare("m", "o200k_base", (10, 100), (70, 214))
    assert said == []


def test_it_is_told_once_an_hour(audit: Audit, said: list[str], clock: Clock) -> None:
    for _ in range(3):
        audit.compare("m", "o200k_base", (10, 1000), (10, 100))
    assert len(said) == 1
    clock.now += WARN_SECONDS
    audit.compare("m", "o200k_base", (10, 1000), (10, 100))
    assert len(said) == 2


def test_one_answer_a_minute_is_counted(audit: Audit, clock: Clock) -> None:
    assert [audit.due("m"), audit.due("m"), audit.due("n")] == [True, False, True]
    clock.now += LOOK_SECONDS
    assert audit.due("m")
