"""A client node and executors in this process: all between the HTTP gateway and an engine is real, and set as in conf/."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from lloom.__main__ import compose
from lloom.adapters.bridge import Connection, Link, Listener, Service, dial
from lloom.adapters.gateway import Gateway, Health, Server
from lloom.adapters.gateway.cors import open_to
from lloom.adapters.llm import Engine
from lloom.adapters.routing.attempt import Keeping
from lloom.adapters.routing.deliveries import Deliveries
from lloom.adapters.routing.directory import Directory
from lloom.adapters.routing.offers import Scope
from lloom.adapters.routing.pool import Pool
from lloom.adapters.routing.router import Router
from lloom.adapters.serving import Serving
from lloom.core.billing.receipt import Draft
from lloom.core.configuration import argv, checks
from lloom.core.eip712 import Domain
from lloom.core.identity import Identity, NodeId
from lloom.core.order import Client
from lloom.core.payment import audit
from lloom.core.routing.outcomes import Outcomes
from lloom.core.routing.plans import Plans
from lloom.core.settings import Settings
from tests.faults.sellers import MODEL, Seller
from tests.integration.bridge_support import NETWORK, certificate
from tests.unit.adapters.routing_support import FakeDht

KERNEL = 32 * 1024
"""Bytes that the kernel is asked to buffer at either end of an HTTP connection; it takes twice as many."""


def defaults(*words: str) -> Settings:
    """What a node has that is told nothing but `words`."""
    tree = compose(argv.rewrite([*words]))
    assert tree is not None
    return checks.settings(tree)


@dataclass
class Counter:
    """An executor's one worker."""

    seller: Seller
    serving: Serving
    listener: Listener
    drafts: list[Draft] = field(default_factory=list)


@dataclass
class Node:
    """A client node that runs, and the executors that it knows."""

    port: int
    settings: Settings
    server: Server
    pool: Pool
    counters: list[Counter]

    @property
    def connections(self) -> list[Connection]:
        """The client's ends of the bridge."""
        return list(self.pool._open)

    @property
    def running(self) -> int:
        """Requests that executors are answering."""
        return sum(counter.serving.running for counter in self.counters)

    def http_buffers(self) -> list[int]:
        """Bytes that wait for each caller."""
        state = self.server._uvicorn.server_state
        return [each.transport.get_write_buffer_size() for each in state.connections]  # type: ignore[union-attr]

    def unread(self) -> list[int]:
        """Bytes of each answer that came over the bridge and wait for its caller's buffer to have room."""
        return [len(stream.unread) for each in self.connections for stream in each._streams.values()]

    def outgoing(self) -> list[int]:
        """Bytes that wait for the network at each end of each bridge connection."""
        ends = [*self.connections, *(each for counter in self.counters for each in counter.listener.connections)]
        return [
            end.session.waiting + end.wire._transport.get_write_buffer_size() for end in ends if end.wire._transport
        ]


@asynccontextmanager
async def node(*engines: Engine, settings: Settings | None = None) -> AsyncIterator[Node]:
    """A client node before one executor for each of `engines`, all of which offer MODEL."""
    chosen = settings or defaults("role=client", "gateway.port=0")
    async with AsyncExitStack() as stack:
        counters = [await stack.enter_async_context(_serving(engine, chosen)) for engine in engines]
        link = Link(Identity.generate(), NETWORK, chosen.bridge)
        deliveries = Deliveries(lambda *_: None)

        async def reach(endpoint: Any, executor: NodeId) -> Connection:
            return await dial(endpoint, executor, link, deliveries.on_control)

        pool = Pool(reach, chosen.bridge.connections)
        stack.push_async_callback(pool.close)
        named: Any = FakeDht(*(counter.seller for counter in counters))  # type: ignore[arg-type]
        directory = Directory(named, None, pool, Scope(NETWORK, chosen.bridge.connect_seconds), chosen.routing)
        stack.push_async_callback(directory.close)
        outcomes = Outcomes(chosen.routing.memory_seconds, chosen.routing.cooldown_seconds)
        keeping = Keeping(
            chosen.routing, outcomes, deliveries, audit=lambda report: audit.problem(report, chosen.accounting)
        )
        router = Router(Client(link.identity, Domain()), Plans(chosen.routing, outcomes), directory, pool, keeping)
        stack.push_async_callback(router.close)
        health = Health(status="ok", node="", role="client", version="", network=NETWORK, peers=1)
        app = open_to(Gateway(router, lambda: health, chosen.gateway), ())
        server = Server(app, _listener(), chosen.gateway)
        stack.push_async_callback(server.close)
        yield Node(server.port, chosen, server, pool, counters)


@asynccontextmanager
async def _serving(engine: Engine, settings: Settings) -> AsyncIterator[Counter]:
    seller = Seller(1, parallel=engine.limits.parallel)
    drafts: list[Draft] = []
    engines = {MODEL: (engine, seller.offer.models[0])}
    serving = Serving(settings.executor, settings.bridge, Domain(), engines, lambda _, draft: drafts.append(draft))
    service = Service(seller.address, NETWORK, settings.bridge, serving.handle, lambda _, __: None)
    listener = await Listener.start("127.0.0.1", 0, certificate(seller.identity), service)
    seller.endpoint = type(seller.endpoint)("127.0.0.1", listener.port)
    serving.book.publish(seller.sealed, seller.offer, time.time())
    try:
        yield Counter(seller, serving, listener, drafts)
    finally:
        await listener.close()


def _listener() -> socket.socket:
    """A gateway's, whose connections keep little in the kernel: what waits does so where it can be seen."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL)
    listener.setblocking(False)
    return listener


async def connect(loop: Any, port: int) -> socket.socket:
    """A caller's connection, which nobody reads yet."""
    caller = socket.socket()
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL)
    caller.setblocking(False)
    await loop.sock_connect(caller, ("127.0.0.1", port))
    return caller
