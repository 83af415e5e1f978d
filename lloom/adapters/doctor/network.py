"""Whether the network lets us in, and what it holds: clock, validators one by one, size, catalogues. It announces nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from statistics import median
from typing import Final

from lloom.adapters.anchors.inquiry import Whereabouts, ask
from lloom.adapters.dht.seeds import Seed
from lloom.adapters.dht.storage import Clock
from lloom.adapters.doctor.address import address, reachability
from lloom.adapters.doctor.visit import Visit, visiting
from lloom.core.errors import ConfigError, RetryElsewhere
from lloom.core.finding import Finding, ok, problem, warning
from lloom.core.identity import Identity, checksum
from lloom.core.messages import CatalogueCall, Numbers, Statistics, decoder
from lloom.core.records import ALL
from lloom.core.settings import Settings

BRIDGE_SECONDS: Final = 6.0
"""For connecting to one validator over TCP, or for one answer of it."""
LET_IN: Final = "set the clock first"

_numbers = decoder(Numbers)


async def check(
    settings: Settings, identity: Identity | None, *, running: bool, clock: Clock = time.time
) -> AsyncGenerator[Finding, None]:
    """Everything about the network, each finding as soon as it is there. `clock` gives Unix seconds."""
    try:
        async with visiting(settings, identity, running=running, clock=clock) as visit:
            told = _clock(visit)
            yield told
            if told.verdict == "problem":
                yield warning("network", "not checked: with this clock nobody lets us in", LET_IN)
                return
            for finding in await bootstrap(visit):
                yield finding
            for found in (address(visit), *await asyncio.gather(reachability(visit), size(visit), catalogue(visit))):
                yield found
    except ConfigError as error:
        yield problem("network", str(error), "mend the configuration as said")


def _clock(visit: Visit) -> Finding:
    """Ours against that of everybody who answered."""
    offsets = visit.dht.status.clocks
    allowed = visit.settings.dht.clock_skew_seconds
    if not offsets:
        if not visit.settings.network.bootstrap:
            return ok("clock", "there is nobody to compare it with")
        return warning("clock", "not checked: nobody answered", "see bootstrap")
    offset = median(offsets)
    others = f"{_count(len(offsets), 'peer')}"
    if abs(offset) <= allowed:
        return ok("clock", f"{abs(offset):.1f} s off that of {others}; {allowed:g} s are allowed")
    side = "behind" if offset > 0 else "ahead of"
    return problem(
        "clock",
        f"{abs(offset):.0f} s {side} that of {others}; {allowed:g} s are allowed",
        "set it: timedatectl set-ntp true (or: chronyc makestep)",
    )


async def bootstrap(visit: Visit) -> list[Finding]:
    """Every entry of `network.bootstrap`: its answer over UDP, and its bridge over TCP."""
    seeds = visit.dht.status.bootstrap
    if not seeds:
        return [_alone(visit)]
    at: dict[tuple[object, int], Whereabouts] = {(who, where.port): (who, where) for who, where in visit.dht.anchors}
    found = await asyncio.gather(*(_seed(visit, seed, at.get(_key(seed))) for seed in seeds))
    if all(seed.problem for seed in seeds):
        advice = (
            "is this machine online, does its firewall let UDP out, are the addresses right, do these validators run?"
        )
        found.append(problem("network", "no validator answers: this node is not in the network", advice))
    return found


def _key(seed: Seed) -> tuple[object, int]:
    return seed.node, int(seed.where.rpartition(":")[2])


def _is_first(visit: Visit) -> bool:
    """Whether this validator begins a network."""
    return visit.settings.role == "validator" and not visit.dht.status.bootstrap


def _alone(visit: Visit) -> Finding:
    if _is_first(visit):
        return ok("bootstrap", "no other validator is configured: the first node of a network asks nobody")
    if visit.settings.network.mdns:
        advice = (
            "fine for a try; with network.bootstrap=[host:port] of a validator there are a catalogue and relays, too"
        )
        return warning("bootstrap", "no validator is configured: others are found by multicast only", advice)
    return problem("bootstrap", "no validator is configured", "name some: network.bootstrap=[0xADDRESS@host:port]")


async def _seed(visit: Visit, seed: Seed, validator: Whereabouts | None) -> Finding:
    check = f"bootstrap {seed.where}"
    if seed.problem is not None or seed.node is None:
        advice = "does it run, is the address right, does a firewall drop UDP? Or name another validator"
        if seed.node is not None and "not 0x" in (seed.problem or ""):
            advice = "somebody else listens there: ask its operator for the right address, do not just take the new one"
        make = warning if any(other.problem is None for other in visit.dht.status.bootstrap) else problem
        return make(check, seed.problem or "it did not answer", advice)
    answered = f"{checksum(seed.node)}: UDP answers in {1000 * (seed.seconds or 0):.1f} ms"
    if validator is None:
        return ok(check, answered)
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(BRIDGE_SECONDS):
            await visit.pool.connection(*validator)
    except (RetryElsewhere, TimeoutError) as error:
        why = str(error) or f"no answer within {BRIDGE_SECONDS:g} s"
        return warning(check, f"{answered}, but TCP does not: {why}", "does a firewall drop TCP to that port?")
    return ok(check, f"{answered}, the bridge (TCP) in {1000 * (loop.time() - began):.1f} ms")


async def size(visit: Visit) -> Finding:
    """How large the DHT seems, and how fast it answers."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    executors = await visit.dht.executors(ALL)
    seconds = loop.time() - began
    status = visit.dht.status
    # Of few nodes all are known: guessing from their ids would be far off.
    nodes = status.estimated_size if status.peers >= visit.settings.dht.k else status.peers + 1
    told = (
        f"about {_count(nodes, 'node')}, {status.peers} of them known; "
        f"{_count(len(executors), 'executor')} found in {1000 * seconds:.0f} ms"
    )
    if not status.peers and _is_first(visit):
        return ok("DHT", "nobody else is here yet")
    if not status.peers:
        return problem("DHT", "no node is known", "see bootstrap")
    if status.crowded:
        advice = "somebody may be hiding records; validators are asked as well, so name several (network.bootstrap)"
        return warning("DHT", f"{told}; ids crowd around {status.crowded} of the keys looked up", advice)
    return ok("DHT", told)


async def catalogue(visit: Visit) -> Finding:
    """What each validator says the network offers."""
    anchors = visit.dht.anchors
    if _is_first(visit):
        return ok("catalogue", "there is no other validator to ask")
    if not anchors:
        return warning("catalogue", "not checked: no validator is known", "see bootstrap")
    answers = await asyncio.gather(*(_numbers_of(visit, each) for each in anchors))
    lines = "; ".join(answer if isinstance(answer, str) else _told(answer) for answer in answers)
    numbers = [answer for answer in answers if not isinstance(answer, str)]
    if not numbers:
        return problem("catalogue", lines, "TCP to the validators is needed: see bootstrap")
    if not any(each.models for each in numbers):
        return warning(
            "catalogue", f"nobody offers a model: {lines}", "start an executor, or wait until one has registered"
        )
    if len(numbers) < len(anchors):
        return warning("catalogue", lines, "those that answer are enough; see bootstrap for the others")
    return ok("catalogue", lines)


async def _numbers_of(visit: Visit, validator: Whereabouts) -> Numbers | str:
    """What it says, or why it does not."""
    try:
        return await ask(visit.pool, validator, CatalogueCall(Statistics()), _numbers, BRIDGE_SECONDS)
    except RetryElsewhere as error:
        return str(error)


def _told(numbers: Numbers) -> str:
    executors, models = _count(numbers.executors, "executor"), _count(numbers.models, "model")
    return f"{executors} ({numbers.vouched} vouched for), {models}, {_count(numbers.workers, 'worker')}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
