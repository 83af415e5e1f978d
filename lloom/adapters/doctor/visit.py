"""A short visit to the network, under a name of its own and beside the node, should that run. It holds nothing for others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from lloom.adapters.bridge import Connection, Link, dial
from lloom.adapters.dht import Dht
from lloom.adapters.dht.storage import Clock
from lloom.adapters.machine import interface
from lloom.adapters.routing.pool import Pool
from lloom.core import anchor
from lloom.core.identity import Identity, NodeId
from lloom.core.offer import Endpoint
from lloom.core.settings import NetworkSettings, Settings

CONNECTIONS: Final = 16
ASKED: Final = "it was not asked yet"
"""What a seed's problem is before it was asked (dht/seeds.py)."""
SECOND_CHANCE: Final = 2.0
"""Seconds for those who did not answer at once: a datagram may be lost."""
MULTICAST_SECONDS: Final = 4.0
"""Neighbours answer within one; a hint is greeted soon after."""
LOOK_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Visit:
    """`identity`: who we are; the node's own one where that runs, so that it can be dialled back."""

    settings: Settings
    identity: Identity
    running: bool
    """Whether the node runs and has its ports."""
    own: bool
    """Whether `identity` is the node's."""
    dht: Dht
    pool: Pool


@asynccontextmanager
async def visiting(
    settings: Settings, identity: Identity | None, *, running: bool, clock: Clock = time.time
) -> AsyncIterator[Visit]:
    """A visit that has asked every configured validator. `identity`: the node's, if known. ConfigError as `Dht.start`."""
    network = _elsewhere(settings.network, identity)
    guest = Identity.generate()
    dht = await Dht.start(guest, network, settings.dht, client=True, clock=clock)
    own = running and identity is not None
    caller = identity if running and identity is not None else guest
    pool = _pool(settings, caller)
    try:
        async with _multicast(settings.network, guest, dht):
            await _asked(dht, settings.dht.lookup_seconds + 2 * settings.dht.rpc_seconds)
            yield Visit(settings, caller, running, own, dht, pool)
    finally:
        await asyncio.gather(pool.close(), dht.stop())


@asynccontextmanager
async def _multicast(network: NetworkSettings, guest: Identity, dht: Dht) -> AsyncIterator[None]:
    """Looks for neighbours, where that is configured, and waits a little for the first where nobody else is known."""
    local = interface.local(network.host, network.advertise) if network.mdns else None
    if local is None:
        yield
        return
    from lloom.adapters.machine import mdns

    async with mdns.announced(mdns.Announcement(guest.address, network.name, local, None), local, dht.hint):
        if not network.bootstrap:
            await _until(lambda: dht.peers > 0, MULTICAST_SECONDS)
        yield


def _elsewhere(network: NetworkSettings, identity: Identity | None) -> NetworkSettings:
    """The same network from any free port; a validator that names itself does not ask itself."""
    own = identity.address if identity is not None else None
    others = tuple(each for each in network.bootstrap if own is None or anchor.parse(each).address != own)
    return replace(network, port=0, bootstrap=others, upnp=False, mdns=False)


def _pool(settings: Settings, identity: Identity) -> Pool:
    bridge = replace(settings.bridge, drain_seconds=1)
    link = Link(identity, settings.network.name, bridge, source=settings.network.host)

    async def reach(endpoint: Endpoint, validator: NodeId) -> Connection:
        return await dial(endpoint, validator, link, lambda _connection, _message: None)

    return Pool(reach, CONNECTIONS)


async def _asked(dht: Dht, seconds: float) -> None:
    """Waits until every seed was asked, and a little longer for those who did not answer, unless a wrong clock explains it."""

    def asked() -> bool:
        return all(seed.problem != ASKED for seed in dht.status.bootstrap)

    def well() -> bool:
        return not any(seed.problem for seed in dht.status.bootstrap) or bool(dht.status.clocks and not dht.peers)

    await _until(asked, seconds)
    await _until(well, SECOND_CHANCE)


async def _until(true: Callable[[], bool], seconds: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not true() and loop.time() < deadline:  # noqa: ASYNC110 (nothing tells of it)
        await asyncio.sleep(LOOK_SECONDS)
