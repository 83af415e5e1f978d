"""The executor's head: who works is offered, who falls silent is not, and workers hear of every change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lloom.actors import base, executor
from lloom.actors.executor import PATIENCE_SECONDS, ExecutorNode
from lloom.core.bridge import certificate
from lloom.core.offer import Endpoint, Offer, Payment, fingerprint, unseal
from tests.money_support import accounting, chain
from tests.unit.actors.actor_support import (
    CERTIFICATE_SECONDS,
    HERE,
    NETWORK,
    THERE,
    TTL,
    FakePlace,
    FakeTime,
    model,
    turns,
    until,
)


class FakeDht:
    """Notes what is announced."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.ready.set()
        self.port = 9000
        self.status = SimpleNamespace(problem=None)
        self.announced: list[tuple[list[str], tuple[Endpoint, ...], bytes]] = []
        self.withdrawn = 0

    async def announce(self, models: list[str], endpoints: tuple[Endpoint, ...], name: bytes) -> int:
        await asyncio.sleep(0)
        self.announced.append((models, endpoints, name))
        return 3

    async def withdraw(self) -> None:
        self.withdrawn += 1


class FakeRegistrar:
    """Notes what the validators are told."""

    def __init__(self) -> None:
        self.told: list[bytes] = []

    def say(self, sealed: bytes) -> None:
        self.told.append(sealed)

    async def goodbye(self, sealed: bytes) -> None:
        self.told.append(sealed)


class Head:
    """An executor's head at work."""

    def __init__(self, clock: FakeTime) -> None:
        self.clock = clock
        self.place = FakePlace("executor")
        self.node = ExecutorNode(self.place.place)
        self.dht = FakeDht()
        self.registrar = FakeRegistrar()

    @property
    def news(self) -> list[tuple[list[str], tuple[Endpoint, ...]]]:
        return [(models, endpoints) for models, endpoints, _ in self.dht.announced]

    async def worker(self, name: str = "a", endpoint: Endpoint = HERE, *models: str) -> None:
        await self.node.enlist(name, endpoint, tuple(map(model, models or ("m",))))

    async def offer(self, seen: int = 0, worker: str = "a") -> tuple[int, Offer]:
        answer = await self.node.offer(worker, seen)
        assert answer is not None
        number, sealed = answer
        return number, unseal(sealed, self.place.node, NETWORK, self.clock.wall)

    @asynccontextmanager
    async def announcing(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.node._announce(cast(Any, self.dht), cast(Any, self.registrar)))
        try:
            async with asyncio.timeout(10):
                yield
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    found = FakeTime()
    monkeypatch.setattr(executor, "time", found)
    monkeypatch.setattr(base, "time", found)
    return found


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks around all the time, and gives up a poll at once."""
    monkeypatch.setattr(executor, "POLL_SECONDS", 0)


async def test_who_enlists_is_offered_and_announced(clock: FakeTime) -> None:
    head = Head(clock)
    async with head.announcing():
        await head.worker("a", HERE, "m")
        await until(lambda: head.news == [(["m"], (HERE,))])
        await head.worker("b", THERE, "n")
        await until(lambda: head.news[1:] == [(["m", "n"], (HERE, THERE))])
        number, offer = await head.offer()
        assert (offer.executor, offer.seq, offer.endpoints) == (head.place.node, number, (HERE, THERE))
        assert offer.expires == int(clock.wall + TTL)
        answer = await head.node.offer("a", 0)
        assert answer is not None
        assert head.dht.announced[-1][2] == fingerprint(answer[1])
        assert await head.node.ready() == "announces m, n from port 9000 (UDP), known to 3 other nodes"


async def test_an_offer_names_every_chain_that_money_is_on_and_none_if_nobody_pays(clock: FakeTime) -> None:
    head = Head(clock)
    base_, polygon = chain("base"), chain("polygon", token="0x" + "12" * 20, rate=7)
    head.place.settings.chain = {"base": base_, "polygon": polygon}
    contract = b"\xc0" * 20
    async with head.announcing():
        await head.worker()
        number, offer = await head.offer()
        assert offer.payments == (
            Payment(8453, contract, bytes(20), base_.rate),
            Payment(137, contract, b"\x12" * 20, 7),
        )
        assert offer.window == head.place.settings.accounting.window > 0
        head.place.settings.accounting = accounting(mode="off")
        await head.worker("b", THERE)
        _, offer = await head.offer(number)
        assert (offer.payments, offer.window) == ((), 0)


@pytest.mark.usefixtures("hurried")
async def test_nothing_is_announced_without_a_change(clock: FakeTime) -> None:
    head = Head(clock)
    async with head.announcing():
        await turns()
        assert head.news == []
        await head.worker()
        await until(lambda: len(head.news) == 1)
        await head.worker()
        await turns()
        assert len(head.news) == 1
        assert head.dht.withdrawn == 0


@pytest.mark.usefixtures("hurried")
async def test_a_silent_worker_is_dropped_and_told_to_enlist_when_it_is_back(clock: FakeTime) -> None:
    head = Head(clock)
    async with head.announcing():
        await head.worker("a", HERE)
        await head.worker("b", THERE)
        await until(lambda: bool(head.news) and head.news[-1][1] == (HERE, THERE))
        clock.pass_(PATIENCE_SECONDS - 1)
        await head.offer(worker="a")
        clock.pass_(2)
        await until(lambda: head.news[-1][1] == (HERE,))
        assert await head.node.offer("b", 0) is None
        await head.worker("b", THERE)
        await until(lambda: head.news[-1][1] == (HERE, THERE))


@pytest.mark.usefixtures("hurried")
async def test_when_nobody_works_any_more_the_announcement_is_taken_back(clock: FakeTime) -> None:
    head = Head(clock)
    async with head.announcing():
        await head.worker()
        await until(lambda: len(head.news) == 1)
        clock.pass_(PATIENCE_SECONDS + 1)
        await until(lambda: head.dht.withdrawn == 1)
        await turns()
        assert (head.dht.withdrawn, len(head.news)) == (1, 1)
        offered, goodbye = (
            unseal(sealed, head.place.node, NETWORK, clock.wall)
            for sealed in (head.registrar.told[0], head.registrar.told[-1])
        )
        assert (offered.goodbye, goodbye.goodbye) == (False, True)
        assert goodbye.seq > offered.seq
        await head.worker()
        await until(lambda: len(head.news) == 2)


@pytest.mark.usefixtures("hurried")
async def test_workers_whose_backends_are_away_offer_nothing_and_come_on_when_they_are_there(clock: FakeTime) -> None:
    head = Head(clock)
    async with head.announcing():
        await head.node.enlist("a", HERE, ())
        assert "offers nothing yet" in await head.node.ready()
        assert head.news == []
        await head.worker("a", HERE, "m")
        await until(lambda: head.news == [(["m"], (HERE,))])
        await head.node.enlist("a", HERE, ())
        await until(lambda: unseal(head.registrar.told[-1], head.place.node, NETWORK, clock.wall).goodbye)
        assert len(head.news) == 1


@pytest.mark.usefixtures("hurried")
async def test_a_worker_is_not_taken_for_silent_because_the_clock_was_set_or_the_machine_slept(clock: FakeTime) -> None:
    head = Head(clock)
    async with head.announcing():
        await head.worker()
        await until(lambda: len(head.news) == 1)
        clock.wall += 3600
        await turns()
        assert await head.node.offer("a", 0) is not None


async def test_a_worker_that_waits_hears_of_a_change_at_once(clock: FakeTime) -> None:
    head = Head(clock)
    async with head.announcing():
        await head.worker()
        number, _ = await head.offer()
        waiting = asyncio.create_task(head.offer(number))
        await turns()
        assert not waiting.done()
        await head.worker("b", THERE)
        later, offer = await waiting
        assert later > number
        assert offer.endpoints == (HERE, THERE)


@pytest.mark.usefixtures("hurried")
async def test_a_worker_that_waits_in_vain_is_answered_and_counts_as_heard(clock: FakeTime) -> None:
    head = Head(clock)
    await head.worker()
    assert await head.node.offer("a", 17) == (17, b"")


async def test_a_worker_that_is_not_known_is_told_to_enlist(clock: FakeTime) -> None:
    assert await Head(clock).node.offer("a", 0) is None


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("step", [TTL / 2, 3 * TTL, -3600])
async def test_an_offer_is_renewed_by_the_wall_clock_whatever_happens_to_it(step: float, clock: FakeTime) -> None:
    """Half of its life over, a night's sleep, a clock set back: its number grows all the same."""
    head = Head(clock)
    async with head.announcing():
        await head.worker()
        await until(lambda: len(head.news) == 1)
        first, _ = await head.offer()
        clock.wall += step - 1 if step == TTL / 2 else step
        if step == TTL / 2:
            await turns()
            assert len(head.news) == 1
            clock.wall += 1
        await until(lambda: len(head.news) == 2)
        later, offer = await head.offer()
        assert later > first
        assert offer.expires == int(clock.wall + TTL)


async def test_an_offer_that_has_expired_is_not_handed_out(clock: FakeTime) -> None:
    head = Head(clock)
    async with head.announcing():
        await head.worker()
        await head.offer()
        clock.wall += TTL  # the machine slept, and the head has not looked around yet
        waiting = asyncio.create_task(head.offer())
        await turns()
        assert not waiting.done()
        await head.worker("b", THERE)
        _, offer = await waiting
        assert offer.expires > clock.wall


async def test_a_head_that_restarts_behind_an_old_clock_is_heard(clock: FakeTime) -> None:
    before = Head(clock)
    async with before.announcing():
        await before.worker()
        seen, _ = await before.offer()
    clock.wall -= 3600
    after = Head(clock)
    async with after.announcing():
        await after.worker()
        number, _ = await after.offer(seen)
        assert number < seen


async def test_it_endorses_a_key_for_as_long_as_is_configured(clock: FakeTime) -> None:
    head = Head(clock)
    key = certificate.new_key()
    endorsement = await head.node.endorse(certificate.public_hash(key))
    certificate.check(
        certificate.issue(key, endorsement), head.place.node, NETWORK, clock.wall + CERTIFICATE_SECONDS - 1
    )
