from __future__ import annotations

import pytest

from lloom.adapters.routing import pockets as module
from lloom.adapters.routing.pockets import NOBODYS, Pockets
from lloom.core.allowance import DAY
from lloom.core.errors import RetryElsewhere
from lloom.core.pocket import Coin, Lack, Pocket
from lloom.core.settings import GatewayKey
from tests.unit.actors.actor_support import FakeTime

COIN = Coin("eip155:1/0x0", "mainnet")
DAYS = 20_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    made = FakeTime(wall=(DAYS + 0.5) * DAY)
    monkeypatch.setattr(module, "time", made)
    return made


def subject(limit: int = 100) -> tuple[Pockets, list[tuple[str, str, int, int]]]:
    told: list[tuple[str, str, int, int]] = []
    pocket = Pocket("alice", GatewayKey(sha256="0" * 64, money_per_day=limit), {})
    return Pockets([pocket], lambda *row: told.append(row)), told


def test_a_bill_is_settled_once_and_the_days_total_told(clock: FakeTime) -> None:
    pockets, told = subject()
    for cost in (30, 20):
        bill = pockets.hold("alice", COIN, 50)
        assert bill is not None
        bill.settle(cost)
        bill.settle(50)
        bill.lower(0)
    assert told == [("alice", COIN.unit, DAYS, 30), ("alice", COIN.unit, DAYS, 50)]
    with pytest.raises(RetryElsewhere):
        pockets.hold("alice", COIN, 51)
    clock.pass_(DAY / 2)
    assert pockets.hold("alice", COIN, 51) is not None


def test_a_bill_holds_no_more_than_it_may_come_to(clock: FakeTime) -> None:
    pockets, told = subject()
    bill = pockets.hold("alice", COIN, 100)
    assert bill is not None
    bill.lower(40)
    bill.lower(90)
    assert pockets.hold("alice", COIN, 60) is not None
    with pytest.raises(RetryElsewhere):
        pockets.hold("alice", COIN, 1)
    bill.settle(0)
    assert told == [], "nothing was spent"
    assert pockets.hold("alice", COIN, 40) is not None


def test_what_a_key_lacks_is_told_by_the_clock(clock: FakeTime) -> None:
    pockets, _ = subject()
    bill = pockets.hold("alice", COIN, 60)
    assert bill is not None
    bill.settle(60)
    assert pockets.lack("alice", COIN, 40) is None
    assert pockets.lack("alice", COIN, 41) == Lack("money_per_day", 100, DAY / 2)
    clock.pass_(DAY / 2)
    assert pockets.lack("alice", COIN, 41) is None


def test_who_has_no_key_has_no_bill() -> None:
    pockets, _ = subject()
    assert ["alice" in each for each in (pockets, NOBODYS)] == [True, False]
    assert subject()[0].hold("", COIN, 1 << 100) is None
    assert NOBODYS.hold("alice", COIN, 1 << 100) is None
