"""Our nodes on simulated networks of growing size, with delays, losses, dead and hostile nodes, in virtual time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

from lloom.adapters.dht import Dht
from lloom.core.identity import NodeId
from tests.bench.dht_real import row
from tests.integration.dht_support import tuned
from tests.integration.test_dht_virtual import ANCHORS, HOSTILE, announced
from tests.integration.virtual_support import INTERNET, LOOPBACK, LOSSY, Link, Simulation, run, simulation

LOOKUPS = 100
DEAD, BAD = 0.3, 0.2
EXECUTORS = 10
CLIENTS = 5
SETTLE = 60.0


def table(sizes: Sequence[int]) -> None:
    """All sizes on a fast network, and the middle one on slow ones."""
    print(f"{'':42}{'n':>6}{'p50':>9}{'p90':>9}{'p99':>9}  (ms)")
    for size in sizes:
        run(one(size, LOOPBACK), seed=size)
    for link in (INTERNET, LOSSY):
        run(one(40, link), seed=40)


async def one(size: int, link: Link) -> None:
    """One network: all well, then a third dead and a fifth hostile, then without validators."""
    began = time.perf_counter()
    settings = tuned(table_refresh_seconds=300.0, bootstrap_seconds=30.0)
    async with simulation(size, seed=size, link=link, settings=settings) as nodes:
        others = nodes.nodes[ANCHORS:]
        executors = others[: min(EXECUTORS, len(others) // 2)]
        loop = asyncio.get_running_loop()
        seconds = []
        for number, node in enumerate(executors):
            started = loop.time()
            await announced(nodes, [node], "m")
            seconds.append(loop.time() - started)
            del number
        served = {nodes.identities[node].address for node in executors}
        clients = [await nodes.add(client=True) for _ in range(CLIENTS)]
        await asyncio.sleep(SETTLE)
        name = f"{size} nodes, {link.name}"
        row(f"{name}: announce", seconds)
        await lookups(f"{name}: lookup", nodes, clients, served)
        rest = [node for node in others if node not in executors]
        nodes.rng.shuffle(rest)
        dying, hostile = rest[: int(DEAD * size)], rest[int(DEAD * size) : int((DEAD + BAD) * size)]
        for number, node in enumerate(hostile):
            HOSTILE[number % len(HOSTILE)](nodes, node)
        for node in dying:
            await nodes.kill(node)
        await lookups("  30 % dead, 20 % hostile", nodes, clients, served)
        for node in nodes.nodes[:ANCHORS]:
            await nodes.kill(node)
        await lookups("  and no validators", nodes, clients, served)
        print(f"{'':42}took {time.perf_counter() - began:.0f} s to simulate", flush=True)


async def lookups(what: str, nodes: Simulation, askers: Sequence[Dht], served: set[NodeId]) -> None:
    """Lookups by clients in turn, a second apart."""
    loop = asyncio.get_running_loop()
    seconds, recalls, datagrams = [], [], 0
    for number in range(LOOKUPS):
        before, began = nodes.network.datagrams, loop.time()
        found = set(await askers[number % len(askers)].executors("m"))
        seconds.append(loop.time() - began)
        datagrams += nodes.network.datagrams - before
        recalls.append(len(found & served) / len(served))
        if found - served:
            raise AssertionError("a record was believed that nobody signed")
        await asyncio.sleep(random.uniform(0.5, 1.5))
    note = f"recall {sum(recalls) / len(recalls):.3f}, worst {min(recalls):.2f}, {datagrams / LOOKUPS:.0f} datagrams"
    row(what, seconds, note)
