"""An executor's head learns from validators how it is reached, and offers itself accordingly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from lloom.actors import base, executor
from lloom.actors.executor import ExecutorNode
from lloom.adapters.anchors.reach import Reach
from lloom.core.bridge import hello
from lloom.core.identity import Identity
from lloom.core.messages import Limits
from lloom.core.offer import Endpoint
from tests.unit.actors.actor_support import HERE, NETWORK, THERE, FakePlace, FakeTime, model, until

VALIDATOR = Identity.generate().address, Endpoint("198.51.100.1", 9000)
RELAY = Endpoint("198.51.100.1", 9000, bytes(VALIDATOR[0]))
ALL = Reach(frozenset({HERE.port, THERE.port}), "203.0.113.9")
NONE = Reach(frozenset(), None)


class Validators:
    """Answer what `findings` says, one after the other; the last one for ever. None: no answer."""

    def __init__(self, *findings: Reach | None) -> None:
        self.findings = list(findings)
        self.asked: list[frozenset[int]] = []

    async def reach(self, _pool: Any, _validators: Any, ports: Collection[int], _fits: Any) -> Reach | None:
        await asyncio.sleep(0)
        self.asked.append(frozenset(ports))
        found = self.findings.pop(0) if len(self.findings) > 1 else self.findings[0]
        return found and Reach(found.ports & frozenset(ports), found.host)


class Dht:
    """Notes whether the node serves."""

    def __init__(self) -> None:
        self.served: list[bool] = []

    def serve(self, serves: bool) -> None:
        self.served.append(serves)


class Head:
    """An executor with one worker, and validators that see how it is reached."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *findings: Reach | None, **network: Any) -> None:
        monkeypatch.setattr(executor, "POLL_SECONDS", 0)
        monkeypatch.setattr(executor, "time", FakeTime())
        monkeypatch.setattr(base, "time", FakeTime())
        self.validators = Validators(*findings)
        monkeypatch.setattr(executor, "reach", self.validators.reach)
        self.place = FakePlace("executor")
        vars(self.place.settings.network).update({"private": True, **network})
        self.place.settings.relay = cast(Any, type("Relay", (), {"check_seconds": 0}))
        self.node = ExecutorNode(self.place.place)
        self.node._anchors = lambda: (VALIDATOR,)
        self.dht = Dht()

    @property
    def ways(self) -> tuple[Endpoint, ...]:
        return self.node._reachability.ways(self.node._roster)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.node._watch_reach(cast(Any, self.dht), cast(Any, None)))
        try:
            async with asyncio.timeout(10):
                yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def looked(self, times: int) -> None:
        """So many times more."""
        wanted = len(self.validators.asked) + times
        await until(lambda: len(self.validators.asked) >= wanted)


async def test_that_nobody_gets_through_is_believed_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    head = Head(monkeypatch, NONE, ALL, NONE, NONE, ALL)
    await head.node.enlist("a", HERE, (model("m"),))
    async with head.watching():
        await head.looked(2)
        assert await head.node.relays("a", (), HERE.port) == ()
        assert head.dht.served == []
        await until(lambda: head.dht.served == [False])
        assert await head.node.relays("a", (RELAY,), HERE.port) == (VALIDATOR,)
        await until(lambda: head.dht.served == [False, True])
        assert await head.node.relays("a", (RELAY,), HERE.port) == ()
        assert head.ways == (HERE,)


async def test_without_a_direct_way_relays_are_offered_as_they_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    head = Head(monkeypatch, NONE)
    await head.node.enlist("a", HERE, (model("m"),))
    async with head.watching():
        await until(lambda: head.dht.served == [False])
    assert head.ways == (HERE,), "as long as there is no relay"
    head.node._stale.clear()
    assert await head.node.relays("a", (RELAY,), HERE.port) == (VALIDATOR,)
    assert head.node._stale.is_set()
    assert head.ways == (RELAY,)
    await head.node.relays("a", (), HERE.port)
    assert head.ways == (HERE,)


async def test_validators_that_do_not_answer_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    head = Head(monkeypatch, None)
    await head.node.enlist("a", HERE, (model("m"),))
    async with head.watching():
        await head.looked(5)
    assert (head.dht.served, head.ways) == ([], (HERE,))


async def test_an_executor_that_does_not_know_its_address_is_relayed_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = Head(monkeypatch, ALL, host="0.0.0.0")
    await head.node.enlist("a", Endpoint("0.0.0.0", HERE.port), (model("m"),))
    assert head.ways == ()
    assert await head.node.relays("a", (RELAY,), HERE.port) == (VALIDATOR,)
    assert head.ways == (RELAY,)
    async with head.watching():
        await until(lambda: head.dht.served == [True])
    assert head.ways == (Endpoint("203.0.113.9", HERE.port),)


@pytest.mark.parametrize(("relay", "wanted"), [("only", (VALIDATOR,)), ("off", ())])
async def test_who_never_asks_is_relayed_always_or_never(
    relay: str, wanted: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = Head(monkeypatch, ALL, relay=relay)
    await head.node.enlist("a", HERE, (model("m"),))
    await head.node._watch_reach(cast(Any, head.dht), cast(Any, None))
    assert head.validators.asked == []
    assert await head.node.relays("a", (), HERE.port) == wanted


async def test_it_greets_validators_in_the_name_of_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    head = Head(monkeypatch, ALL)
    audience = hello.Audience(NETWORK, VALIDATOR[0], b"certificate")
    said = await head.node.greet(audience, Limits(16, 1 << 18, 1 << 20, 1 << 16))
    assert hello.check(said, audience, executor.time.time(), 60) == head.place.node
