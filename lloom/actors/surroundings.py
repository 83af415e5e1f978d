"""What a node does around its work, as configured: multicast, the router's ports, numbers for Prometheus. None of it is needed.

The libraries are imported only where it is switched on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager

from loguru import logger

from lloom.actors.place import Place
from lloom.adapters.dht import Dht
from lloom.adapters.figures import Read
from lloom.adapters.machine import interface

TCP, UDP = "TCP", "UDP"


@asynccontextmanager
async def surrounded(place: Place, dht: Dht, ports: Collection[tuple[str, int]], read: Read) -> AsyncIterator[None]:
    """As long as the actor works. `ports`: where strangers dial this node; none: it is not to be found. `read`: its numbers.

    ConfigError if the numbers cannot be shown where they should be.
    """
    network, metrics = place.settings.network, place.settings.metrics
    local = interface.local(network.host, network.advertise)
    async with AsyncExitStack() as stack:
        if metrics.port is not None:
            from lloom.adapters.scraping import scraped

            url = await stack.enter_async_context(scraped(read, metrics.host, metrics.port))
            logger.info("shows its numbers at {}", url)
        if network.mdns and network.relay != "only" and local is not None:
            from lloom.adapters.machine import mdns

            own = mdns.Announcement(place.node, network.name, local, dht.port if ports else None)
            await stack.enter_async_context(mdns.announced(own, local, dht.hint))
        if network.upnp and ports and local is not None:
            from lloom.adapters.machine import upnp

            await stack.enter_async_context(upnp.forwarded(local, ports))
        yield
