"""A client without Ray: the real gateway, router and bridge, before executors that are named to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec

from lloom.adapters.bridge import Connection, Link, dial
from lloom.adapters.gateway import Gateway, Health, Server
from lloom.adapters.routing.attempt import Keeping
from lloom.adapters.routing.deliveries import Deliveries
from lloom.adapters.routing.directory import Directory
from lloom.adapters.routing.offers import Scope
from lloom.adapters.routing.pool import Pool
from lloom.adapters.routing.router import Router
from lloom.core.eip712 import Domain
from lloom.core.identity import Identity, NodeId
from lloom.core.offer import Endpoint
from lloom.core.order import Client
from lloom.core.routing.outcomes import Outcomes
from lloom.core.routing.plans import Plans
from tests.faults.sellers import Seller
from tests.integration import gateway_support
from tests.integration.bridge_support import NETWORK, settings
from tests.unit.adapters.routing_support import SETTINGS, FakeDht

PATIENCE = 2.0
"""Seconds to the first content, and between tokens: short, so that the table is soon there."""
ROUTING = msgspec.structs.replace(
    SETTINGS,
    first_token_seconds=PATIENCE,
    between_tokens_seconds=PATIENCE,
    total_seconds=20,
    cooldown_seconds=0.05,  # nearly none: the faulty ones, which are cheaper, are asked again and again
    grace_seconds=0.05,
)
GATEWAY = msgspec.structs.replace(gateway_support.SETTINGS, max_body=1 << 20)


@asynccontextmanager
async def client(sellers: Sequence[Seller]) -> AsyncIterator[int]:
    """The port of a gateway that asks the cheapest of `sellers` first."""
    async with AsyncExitStack() as stack:
        link = Link(Identity.generate(), NETWORK, settings(connect_seconds=PATIENCE, handshake_seconds=PATIENCE))
        deliveries = Deliveries(lambda *_: None)

        async def reach(endpoint: Endpoint, executor: NodeId) -> Connection:
            return await dial(endpoint, executor, link, deliveries.on_control)

        pool = Pool(reach, 64)
        stack.push_async_callback(pool.close)
        named: Any = FakeDht(*sellers)  # type: ignore[arg-type]
        directory = Directory(named, None, pool, Scope(NETWORK, 20), ROUTING)
        for seller in sellers:  # as a validator's catalogue would name them
            directory._offers.learn(seller.offer, seller.fingerprint)
        stack.push_async_callback(directory.close)
        outcomes = Outcomes(ROUTING.memory_seconds, ROUTING.cooldown_seconds)
        keeping = Keeping(ROUTING, outcomes, deliveries)
        router = Router(Client(link.identity, Domain()), Plans(ROUTING, outcomes), directory, pool, keeping)
        stack.push_async_callback(router.close)
        health = Health(status="ok", node="", role="client", version="", network=NETWORK, peers=1)
        server = Server.start(Gateway(router, lambda: health, GATEWAY), GATEWAY)
        stack.push_async_callback(server.close)
        yield server.port
