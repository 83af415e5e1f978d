"""Whom a validator dials back, how many at once and how often: a check must cost it little, and nobody may take all of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lloom.adapters.validator import dialback
from lloom.adapters.validator.dialback import AT_ONCE, CHECKS_PER_SECOND, SUBNET_SHARE, DialBack
from lloom.core.errors import RetryElsewhere
from lloom.core.messages import ReachCall, Reached, decode, decoder
from lloom.core.offer import Endpoint


@dataclass
class Asking:
    """A stream of somebody at `host` who wants to be dialled back."""

    host: str
    ports: tuple[int, ...] = (9000,)
    said: bytes = b""
    connection: Any = field(init=False)

    def __post_init__(self) -> None:
        self.connection = SimpleNamespace(peer=bytes(20), wire=SimpleNamespace(address=self.host))

    @property
    def call(self) -> ReachCall:
        return ReachCall(self.ports)

    async def send(self, data: bytes) -> None:
        self.said += data

    async def finish(self) -> None:
        pass


@dataclass
class Dials:
    """Those under way; none is answered before `over`, and then all are refused."""

    back: DialBack
    under_way: list[Endpoint] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def dial(self, endpoint: Endpoint, *_: object) -> None:
        self.under_way.append(endpoint)
        await self.over.wait()
        raise RetryElsewhere("nobody there")

    def ask(self, asking: Asking) -> asyncio.Task[None]:
        return asyncio.create_task(self.back.answer(cast(Any, asking)))

    async def refused(self, asking: Asking) -> bool:
        with pytest.raises(RetryElsewhere) as caught:
            await self.back.answer(cast(Any, asking))
        return caught.value.status == 429


@pytest.fixture
async def dials(monkeypatch: pytest.MonkeyPatch) -> Dials:
    made = Dials(DialBack(cast(Any, SimpleNamespace(settings=SimpleNamespace(connect_seconds=1)))))
    monkeypatch.setattr(dialback, "dial", made.dial)
    return made


async def test_all_ports_are_dialled_together_so_that_silent_ones_take_no_longer_than_one(dials: Dials) -> None:
    asking = Asking("203.0.113.7", tuple(range(9000, 9016)))
    task = dials.ask(asking)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [each.port for each in dials.under_way] == list(asking.ports)
    dials.over.set()
    await task
    assert decode(asking.said, decoder(Reached)) == Reached("203.0.113.7", ("nobody there",) * 16)


async def test_an_address_is_checked_once_at_a_time(dials: Dials) -> None:
    task = dials.ask(Asking("203.0.113.7"))
    await asyncio.sleep(0)
    assert await dials.refused(Asking("203.0.113.7"))
    dials.over.set()
    await task
    await dials.back.answer(cast(Any, Asking("203.0.113.7")))


async def test_one_network_with_many_addresses_leaves_room_for_others(
    dials: Dials, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = [f"2606:4700:0:1::{number:x}" for number in range(1, AT_ONCE + 1)]
    now = 0.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now, raising=False)
    results = []
    for host in hosts:
        now += 1.0
        results.append(dials.ask(Asking(host)))
        await asyncio.sleep(0)
    assert sum(not each.done() for each in results) == AT_ONCE // SUBNET_SHARE
    other = dials.ask(Asking("203.0.113.7"))
    await asyncio.sleep(0)
    assert not other.done()
    dials.over.set()
    await asyncio.gather(other, *results, return_exceptions=True)


async def test_one_network_is_checked_so_often_a_second(dials: Dials) -> None:
    dials.over.set()
    for _ in range(CHECKS_PER_SECOND):
        await dials.back.answer(cast(Any, Asking("203.0.113.7")))
    assert await dials.refused(Asking("203.0.113.8"))
    await dials.back.answer(cast(Any, Asking("198.51.100.7")))
