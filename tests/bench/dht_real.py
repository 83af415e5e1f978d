"""How fast real nodes announce and find, over UDP on loopback: all well, then a third dead and a fifth hostile."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Sequence

from lloom.adapters.dht import Dht
from lloom.core.identity import NodeId
from tests.integration.dht_support import Swarm, endpoint, fingerprint, swarm

MODELS = [f"model-{number}" for number in range(6)]
LOOKUPS = 120
DEAD = 0.3


def row(what: str, seconds: Sequence[float], note: str = "") -> None:
    """One line of the table, times in milliseconds."""
    ordered = sorted(seconds)
    p50, p90, p99 = (1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.9, 0.99))
    print(f"{what:42}{len(ordered):6}{p50:9.1f}{p90:9.1f}{p99:9.1f}  {note}", flush=True)


async def timed(work: Awaitable[object]) -> float:
    """Seconds that `work` takes."""
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


async def lookups(what: str, askers: Sequence[Dht], served: dict[str, set[NodeId]]) -> None:
    """Time lookups by `askers` in turn, and how much of `served` they find."""
    seconds, recalls = [], []
    for number in range(LOOKUPS):
        model = MODELS[number % len(MODELS)]
        started = time.perf_counter()
        found = set(await askers[number % len(askers)].executors(model))
        seconds.append(time.perf_counter() - started)
        recalls.append(len(found & served[model]) / len(served[model]))
    row(what, seconds, f"recall {sum(recalls) / len(recalls):.3f}, worst {min(recalls):.2f}")


async def announce_all(nodes: Swarm) -> dict[str, set[NodeId]]:
    """Every node but the seeds announces three models: who serves what."""
    served: dict[str, set[NodeId]] = {model: set() for model in MODELS}
    seconds = []
    for number, node in enumerate(nodes.nodes[2:]):
        models = random.sample(MODELS, 3)
        seconds.append(await timed(node.announce(models, [endpoint(number)], fingerprint(number))))
        for model in models:
            served[model].add(nodes.identities[node].address)
    row("announce 3 models (5 records)", seconds)
    return served


async def table(count: int, loop: str) -> None:
    """The whole table."""
    print(f"\n{count} nodes on {loop:29}{'n':>6}{'p50':>9}{'p90':>9}{'p99':>9}  (ms)")
    async with swarm(count) as nodes:
        served = await announce_all(nodes)
        client = await nodes.add(client=True)
        await lookups("lookup by a client", [client], served)
        await lookups("lookup by any node", nodes.nodes, served)
        addresses = [nodes.identities[node].address for node in nodes.nodes[2:-1]]
        row("contact", [await timed(client.contact(random.choice(addresses))) for _ in range(LOOKUPS)])
        for node in random.sample(nodes.nodes[2:-1], int(DEAD * count)):
            await nodes.kill(node)
        await lookups(f"{DEAD:.0%} dead: by the client", [client], served)
        await lookups(f"{DEAD:.0%} dead: first ones of each node", nodes.nodes[:-1], served)
        await lookups(f"{DEAD:.0%} dead: later ones", nodes.nodes[:-1], served)
        row("contact", [await timed(client.contact(random.choice(addresses))) for _ in range(LOOKUPS)])
        newcomer = await nodes.add(client=True)
        await lookups("lookup by a new client", [newcomer], served)
        again = [timed(node.announce(MODELS[:3], [endpoint(1)], fingerprint(1))) for node in nodes.nodes[2:12]]
        row("announce", [await one for one in again])
