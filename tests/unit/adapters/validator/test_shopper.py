"""Who visits executors: some identities at a time, always others after a while, and nobody is sent away amid a visit."""

from __future__ import annotations

from typing import Any, cast

import pytest
from msgspec.structs import replace

from lloom.adapters.validator.shopper import Shopper, Shoppers
from lloom.core.identity import Identity, NodeId
from lloom.core.order import Client
from tests.integration.test_prober import SETTINGS

OWNER = Identity(bytes(31) + b"\x01")
EXECUTORS = [NodeId(bytes([number]) * 20) for number in range(32)]
HOUR = 3600.0


class FakePool:
    closed = False
    connections = 1

    async def close(self) -> None:
        self.closed = True


class Agency:
    """Shoppers, and all that were ever made."""

    def __init__(self, keys: int = 4) -> None:
        self.made: list[Shopper] = []
        settings = replace(SETTINGS, probe_keys=keys, probe_key_seconds=HOUR)
        self.shoppers = Shoppers(OWNER, self.make, settings)

    def make(self, identity: Identity) -> Shopper:
        made = Shopper(Client(identity, cast(Any, None)), cast(Any, FakePool()), cast(Any, None))
        self.made.append(made)
        return made

    async def visit(self, executor: NodeId, now: float) -> NodeId:
        async with self.shoppers.visiting(executor, now) as shopper:
            return shopper.client.identity.address

    @property
    def closed(self) -> list[bool]:
        return [cast(FakePool, shopper.pool).closed for shopper in self.made]


async def test_each_executor_is_visited_by_the_same_one_until_the_epoch_ends_and_not_all_by_one() -> None:
    agency = Agency()
    early = [await agency.visit(executor, 0) for executor in EXECUTORS]
    assert [await agency.visit(executor, HOUR - 1) for executor in EXECUTORS] == early
    late = [await agency.visit(executor, HOUR) for executor in EXECUTORS]
    assert len(set(early)) == len(set(late)) == 4
    assert not set(early) & set(late)
    assert OWNER.address not in {*early, *late}
    assert agency.closed == [True] * 4 + [False] * 4


async def test_who_was_there_before_a_restart_is_there_again() -> None:
    assert await Agency().visit(EXECUTORS[0], 0) == await Agency().visit(EXECUTORS[0], HOUR - 1)


async def test_nobody_is_sent_away_amid_a_visit() -> None:
    agency = Agency(keys=1)
    async with agency.shoppers.visiting(EXECUTORS[0], 0):
        await agency.visit(EXECUTORS[0], HOUR)
        assert agency.closed == [False, False]
    await agency.visit(EXECUTORS[0], HOUR)
    assert agency.closed == [True, False]
    assert agency.shoppers.connections == 1
    await agency.shoppers.close()
    assert agency.closed == [True, True]


@pytest.mark.parametrize("keys", [1, 3])
async def test_there_are_no_more_of_them_than_wanted(keys: int) -> None:
    agency = Agency(keys)
    assert len({await agency.visit(executor, 0) for executor in EXECUTORS}) == keys
