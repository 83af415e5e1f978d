"""Keys of the gateway and what they used before, with a real journal behind the accounting actor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lloom.actors.guests import invited
from lloom.adapters.journal import allowances
from lloom.adapters.journal.allowances import TOKENS
from lloom.adapters.journal.file import Journal
from lloom.adapters.routing import pockets
from lloom.core.allowance import MONTH
from lloom.core.errors import LimitReached, RetryElsewhere
from lloom.core.pocket import Coin
from lloom.core.settings import GatewayKey
from tests.unit.actors.actor_support import FakePlace, FakeTime

DAY = 20_000
NOON = (DAY + 0.5) * 86_400


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "ledger.sqlite")
    yield opened
    opened.close()


def place(journal: Journal, **keys: GatewayKey) -> FakePlace:
    def accounting(fellow: str, method: str, *arguments: Any) -> Any:
        assert fellow == "accounting"
        work = {"note": allowances.note, "noted": allowances.known}[method]
        (result,) = journal.commit([lambda db: work(db, *arguments)])
        return result

    found = FakePlace(fellows=accounting)
    found.settings.gateway = SimpleNamespace(keys=keys)
    return found


ALICE = GatewayKey(sha256="0" * 64, tokens_per_day=100)
COIN = Coin("eip155:8453/0x0", "base")


async def test_a_restart_gives_nobody_a_fresh_budget(journal: Journal) -> None:
    node = place(journal, alice=ALICE, bob=GatewayKey(sha256="1" * 64))
    for used in (60, 30):
        async with AsyncExitStack() as stack:
            guests, _ = await invited(node.place, stack)
            alice, bob = guests.allowances
            assert (alice.name, bob.name) == ("alice", "bob")
            alice.reserve("m", used, 0.0, NOON)
            guests.spent("alice", *alice.settle(used, used, 0.0, NOON))
    async with AsyncExitStack() as stack:
        alice = (await invited(node.place, stack))[0].allowances[0]
        alice.reserve("m", 10, 0.0, NOON)
        with pytest.raises(LimitReached):
            alice.reserve("m", 1, 0.0, NOON)


async def test_a_restart_gives_nobody_fresh_money(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pockets, "time", FakeTime(wall=NOON))
    node = place(journal, alice=GatewayKey(sha256="0" * 64, money_per_day=1 << 80, tokens_per_day=1))
    for cost in (1 << 79, 1 << 78):
        async with AsyncExitStack() as stack:
            _, money = await invited(node.place, stack)
            bill = money.hold("alice", COIN, 1 << 79)
            assert bill is not None
            bill.settle(cost)
    async with AsyncExitStack() as stack:
        guests, money = await invited(node.place, stack)
        with pytest.raises(RetryElsewhere, match="money_per_day"):
            money.hold("alice", COIN, (1 << 78) + 1)
        assert money.hold("alice", COIN, 1 << 78) is not None
        guests.allowances[0].reserve("m", 1, 0.0, NOON)  # money is no tokens


async def test_the_key_of_the_house_is_another_one_every_time(journal: Journal) -> None:
    async with AsyncExitStack() as stack:
        made = {(await invited(place(journal, alice=ALICE).place, stack))[0].own for _ in range(2)}
    assert len(made) == 2
    assert all(made)


async def test_without_keys_nobody_is_asked(journal: Journal) -> None:
    node = FakePlace(fellows=None)
    node.settings.gateway = SimpleNamespace(keys={})
    async with AsyncExitStack() as stack:
        guests, _ = await invited(node.place, stack)
    assert (guests.allowances, guests.own) == ((), "")


async def test_without_the_journal_the_gateway_does_not_open(journal: Journal) -> None:
    node = place(journal, alice=ALICE)

    def away(*_: Any) -> Any:
        raise RetryElsewhere("away")

    node.fellows = away
    async with AsyncExitStack() as stack:
        with pytest.raises(RetryElsewhere):
            await invited(node.place, stack)


def test_totals_may_come_late_and_twice_and_old_days_go(journal: Journal) -> None:
    for rows in (
        [("a", TOKENS, DAY, 5)],
        [("a", TOKENS, DAY, 9), ("b", "wei", DAY - 1, 1 << 90)],
        [("a", TOKENS, DAY, 5)],
    ):
        journal.commit([lambda db, rows=rows: allowances.note(db, rows)])
    assert sorted(journal.commit([allowances.known])[0]) == [("a", TOKENS, DAY, 9), ("b", "wei", DAY - 1, 1 << 90)]
    journal.commit([lambda db: allowances.note(db, [("a", TOKENS, DAY + MONTH - 1, 1)])])
    assert sorted(journal.commit([allowances.known])[0]) == [
        ("a", TOKENS, DAY, 9),
        ("a", TOKENS, DAY + MONTH - 1, 1),
    ]
    journal.commit([lambda db: allowances.note(db, [("a", TOKENS, DAY + MONTH, 1)])])
    assert [day for _, _, day, _ in journal.commit([allowances.known])[0]] == [DAY + MONTH - 1, DAY + MONTH]
