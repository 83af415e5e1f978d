"""Stock kademlia 2.2.3 doing the same as our nodes, as far as it can: one value for a key, no signatures, no limits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable

from kademlia.network import Server

from tests.bench.dht_real import DEAD, row
from tests.free_ports import free_port

KEYS = 12
PATIENCE = 60.0
"""Seconds after which one operation is given up and counted as that long."""
FEW = 5
"""Operations among dead peers: each takes seconds."""


async def timed(work: Awaitable[object]) -> tuple[float, object]:
    """Seconds that `work` takes, and its result; None if it was given up or failed."""
    began = time.perf_counter()
    result: object = None
    with contextlib.suppress(TimeoutError, ValueError, OSError):  # it raises ValueError when all neighbours are dead
        async with asyncio.timeout(PATIENCE):
            result = await work
    return time.perf_counter() - began, result


async def table(count: int) -> None:
    """The rows of stock kademlia."""
    logging.getLogger("kademlia").setLevel(logging.CRITICAL)
    logging.getLogger("rpcudp").setLevel(logging.CRITICAL)
    print(f"\n{count} nodes of stock kademlia 2.2.3{'':14}{'n':>6}{'p50':>9}{'p90':>9}{'p99':>9}  (ms)")
    nodes: list[Server] = []
    seed = free_port()
    for number in range(count):
        node = Server(ksize=8, alpha=3)
        await node.listen(seed if number == 0 else free_port(), "127.0.0.1")
        if number:
            await node.bootstrap([("127.0.0.1", seed)])
        nodes.append(node)
    try:
        sets = [(await timed(nodes[number % count].set(f"key-{number}", "value")))[0] for number in range(KEYS)]
        row("set (one record)", sets)
        await gets("get by any node", nodes, 60)
        for node in random.sample(nodes[1:], int(DEAD * count)):
            node.stop()
            nodes.remove(node)
        await gets(f"{DEAD:.0%} dead: get", nodes, FEW)
        again = [(await timed(random.choice(nodes).set(f"new-{number}", "value")))[0] for number in range(FEW)]
        row(f"{DEAD:.0%} dead: set", again)
    finally:
        for node in nodes:
            node.stop()


async def gets(what: str, nodes: list[Server], count: int) -> None:
    seconds, found = [], 0
    for number in range(count):
        took, value = await timed(nodes[number % len(nodes)].get(f"key-{number % KEYS}"))
        seconds.append(took)
        found += value is not None
    row(what, seconds, f"found {found / count:.2f}")
