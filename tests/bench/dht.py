"""Discovery measured: `just bench dht` prints tables, of real nodes beside stock kademlia, and of simulated ones up to 1,000."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

import uvloop
from loguru import logger

from tests.bench import dht_real, dht_simulated, dht_stock

SIZES = (10, 40, 160, 1000)
QUICK_SIZES = (10, 40, 160)


def main(arguments: Sequence[str]) -> int:
    """The tables that `arguments` ask for; the exit status."""
    parser = argparse.ArgumentParser(prog="just bench dht", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="no simulation of 1,000 nodes: two minutes instead of ten")
    parser.add_argument("--nodes", type=int, default=40, help="real nodes (40)")
    wanted = parser.parse_args(arguments)
    logger.remove()
    print(
        "Real UDP on loopback, all nodes in one process; budgets: lookup p50 60, p99 300, announce p50 150 (ms), recall 0.9"
    )
    for name, factory in (("uvloop", uvloop.new_event_loop), ("asyncio", asyncio.new_event_loop)):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(dht_real.table(wanted.nodes, name))
    asyncio.run(dht_stock.table(wanted.nodes))
    print(
        "\nSimulated, in virtual time: network delays only, no time for computing; 3 validators, 10 executors of the model"
    )
    dht_simulated.table(QUICK_SIZES if wanted.quick else SIZES)
    return 0
