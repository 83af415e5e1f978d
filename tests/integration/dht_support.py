"""Swarms of DHT nodes within one process, over real UDP on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import msgspec
import pytest
import uvloop

from lloom.adapters.dht import Dht
from lloom.core.identity import Identity
from lloom.core.offer import Endpoint
from lloom.core.settings import DhtSettings, NetworkSettings

DEADLINE = 30.0

SETTINGS = DhtSettings(
    k=8,
    alpha=3,
    paths=3,
    max_queries=48,
    lookup_seconds=3.0,
    rpc_seconds=1.0,
    hedge_seconds=0.4,
    record_ttl_seconds=900.0,
    table_refresh_seconds=60.0,
    bootstrap_seconds=1.0,
    records_per_key=256,
    records_per_publisher=64,
    records_per_subnet=8,
    records=10_000,
    shards=4,
    contacts_per_subnet=2,
    clock_skew_seconds=120.0,
    datagrams_per_second=1000,
    datagrams=10_000,
)


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run `test` on asyncio and on uvloop: kademlia fails differently on the two."""

    def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], **fixtures: object) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(test(**fixtures))

    own = inspect.Parameter("loop_factory", inspect.Parameter.KEYWORD_ONLY)
    signature = inspect.signature(test)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), own])  # type: ignore[attr-defined]
    run.__name__ = test.__name__
    loops = pytest.mark.parametrize(
        "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
    )
    return loops(run)


class Clock:
    """Unix time that a test can push forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def network(*seeds: int, name: str = "test", port: int = 0) -> NetworkSettings:
    """Settings of a node on loopback that knows the nodes at the ports `seeds`."""
    bootstrap = tuple(f"127.0.0.1:{seed}" for seed in seeds)
    return NetworkSettings(
        name=name,
        host="127.0.0.1",
        port=port,
        advertise=None,
        bootstrap=bootstrap,
        private=True,
        relay="auto",
        upnp=False,
        mdns=False,
    )


def tuned(**changes: float) -> DhtSettings:
    """`SETTINGS` with `changes`."""
    return msgspec.structs.replace(SETTINGS, **changes)


def endpoint(number: int) -> Endpoint:
    """Where executor `number` would listen."""
    return Endpoint("127.0.0.1", 10_000 + number)


def fingerprint(number: int) -> bytes:
    """What would name the offer of executor `number`."""
    return hashlib.sha256(b"%d" % number).digest()


async def until(condition: Callable[[], bool], seconds: float = DEADLINE, poll: float = 0.01) -> None:
    """Wait for `condition`, looked at every `poll` seconds (0: in every turn of the loop); TimeoutError after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 (many conditions have no event)
            await asyncio.sleep(poll)


class Swarm:
    """Nodes of one network; the first one is everybody's seed."""

    def __init__(self, name: str, settings: DhtSettings, clock: Clock) -> None:
        self.name = name
        self.settings = settings
        self.clock = clock
        self.nodes: list[Dht] = []
        self.identities: dict[Dht, Identity] = {}

    async def add(self, *, client: bool = False) -> Dht:
        """One node more, in the network."""
        seeds = [node.port for node in self.nodes[:2]]
        identity = Identity.generate()
        node = await Dht.start(
            identity, network(*seeds, name=self.name), self.settings, client=client, clock=self.clock
        )
        self.identities[node] = identity
        self.nodes.append(node)
        async with asyncio.timeout(DEADLINE):
            await node.ready.wait()
        return node

    async def kill(self, node: Dht) -> None:
        """End `node` without a goodbye, as if its process had been killed."""
        self.nodes.remove(node)
        await node._tasks.close()
        await node._swarm.close()

    async def stop(self) -> None:
        """End all, quickly."""
        for node in list(self.nodes):
            await self.kill(node)


@contextlib.asynccontextmanager
async def swarm(
    count: int, *, name: str = "test", settings: DhtSettings = SETTINGS, clock: Clock | None = None
) -> AsyncIterator[Swarm]:
    """A swarm of `count` nodes that know each other."""
    nodes = Swarm(name, settings, clock or Clock())
    try:
        for _ in range(count):
            await nodes.add()
        await until(lambda: all(node.peers >= min(count - 1, 8) for node in nodes.nodes))
        yield nodes
    finally:
        await nodes.stop()
