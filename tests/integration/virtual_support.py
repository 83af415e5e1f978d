"""An event loop whose time jumps instead of passing, and a network within it: the production code runs on both unchanged."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import random
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any
from unittest import mock

import msgspec

from lloom.adapters.dht import Dht
from lloom.core.identity import Identity, checksum
from lloom.core.settings import DhtSettings, NetworkSettings
from tests.integration.dht_support import SETTINGS

EPOCH = 1_800_000_000
"""Unix time when the loop's time is 0."""
TURN = 1e-6
PORT = 4100
NAME = "simulated"
ANCHORS = 3


class _Jumping(selectors.DefaultSelector):
    """Waits for nothing: whoever waits is told that the time is over. But a turn of the loop takes a moment, as on any machine:
    who waits for the time to go on and meanwhile pauses for none would else do so for ever.
    """

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits and nothing will ever happen")
        self.now += max(TURN, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop in virtual time. Sockets are those of a `Network`, names are literal addresses."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        return [(0, 0, 0, "", (host, port))]

    async def create_datagram_endpoint(self, factory: Any, *_: Any, **options: Any) -> Any:
        protocol = factory()
        transport = _Transport(options["sock"], protocol, self)
        protocol.connection_made(transport)
        return transport, protocol


class Link(msgspec.Struct, frozen=True):
    """How datagrams travel: one-way delay in seconds (uniform between two bounds), and which share is lost."""

    name: str
    shortest: float
    longest: float
    loss: float


LOOPBACK = Link("0.2 ms", 0.0002, 0.0002, 0.0)
INTERNET = Link("20-80 ms", 0.02, 0.08, 0.0)
LOSSY = Link("20-80 ms, 2 % lost", 0.02, 0.08, 0.02)


class Socket:
    """A place in the network."""

    def __init__(self, network: Network, host: str, port: int) -> None:
        self.network = network
        self.address = host, port


class Network:
    """Delivers datagrams between the simulated addresses that are bound; what goes elsewhere is lost without a word."""

    def __init__(self, link: Link, rng: random.Random) -> None:
        self.link = link
        self.datagrams = 0
        self.longest = 0
        self._rng = rng
        self._bound: dict[tuple[str, int], _Transport] = {}

    def bind(self, port: int, interface: str, *, both: bool = False) -> list[Socket]:
        """Stands for `lloom.adapters.dht.sockets.bind`."""
        return [Socket(self, interface, port)]

    def open(self, transport: _Transport) -> None:
        self._bound[transport.address] = transport

    def close(self, transport: _Transport) -> None:
        self._bound.pop(transport.address, None)

    def carry(self, data: bytes, source: tuple[str, int], to: tuple[str, int]) -> None:
        """Bring `data` from `source` to whoever is bound at `to` when it arrives."""
        self.datagrams += 1
        self.longest = max(self.longest, len(data))
        if self._rng.random() >= self.link.loss:
            delay = self._rng.uniform(self.link.shortest, self.link.longest)
            asyncio.get_running_loop().call_later(delay, self._deliver, data, source, to)

    def _deliver(self, data: bytes, source: tuple[str, int], to: tuple[str, int]) -> None:
        if to in self._bound:
            self._bound[to].protocol.datagram_received(data, source)


class _Transport(asyncio.DatagramTransport):
    def __init__(self, socket: Socket, protocol: Any, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__({"sockname": socket.address})
        self.address = socket.address
        self.protocol = protocol
        self._network = socket.network
        self._loop = loop
        self._closing = False
        self._network.open(self)

    def sendto(self, data: Any, addr: Any = None) -> None:
        if not self._closing:
            self._network.carry(bytes(data), self.address, addr)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._network.close(self)
            self._loop.call_soon(self.protocol.connection_lost, None)


def now() -> float:
    """Unix time in the simulation."""
    return EPOCH + asyncio.get_running_loop().time()


class Simulation:
    """Nodes with one address in a /24 of its own each. The first `ANCHORS` are everybody's validators, pinned.

    The addresses are public ones, so that the rules for subnets apply; no datagram leaves the process.
    """

    def __init__(self, network: Network, rng: random.Random, settings: DhtSettings) -> None:
        self.network = network
        self.rng = rng
        self.settings = settings
        self.nodes: list[Dht] = []
        self.identities: dict[Dht, Identity] = {}
        self.anchors: list[str] = []
        self._hosts = 0

    def host(self) -> str:
        """An address that nobody had."""
        self._hosts += 1
        return f"11.{self._hosts >> 8}.{self._hosts & 255}.1"

    def identity(self) -> Identity:
        """A key that is the same in every run."""
        return Identity(self.rng.randbytes(32))

    async def add(
        self, *, client: bool = False, hidden: bool = False, seeds: list[str] | None = None, wait: bool = True
    ) -> Dht:
        """One node more, in the network. `seeds`: its validators, if not the usual ones."""
        identity, host = self.identity(), self.host()
        bootstrap = tuple(self.anchors if seeds is None else seeds)
        settings = NetworkSettings(
            name=NAME,
            host=host,
            port=PORT,
            advertise=None,
            bootstrap=bootstrap,
            private=False,
            relay="only" if hidden else "auto",
            upnp=False,
            mdns=False,
        )
        node = await Dht.start(identity, settings, self.settings, client=client or hidden, clock=now)
        self.identities[node] = identity
        self.nodes.append(node)
        if len(self.anchors) < ANCHORS and seeds is None:
            self.anchors.append(f"{checksum(identity.address)}@{host}:{PORT}")
        if wait:
            await node.ready.wait()
        return node

    async def kill(self, node: Dht) -> None:
        """End `node` without a goodbye, as if its process had been killed."""
        self.nodes.remove(node)
        await node._tasks.close()
        await node._swarm.close()


@contextlib.asynccontextmanager
async def simulation(
    count: int, *, seed: int, link: Link = LOOPBACK, settings: DhtSettings = SETTINGS, settle: float = 5.0
) -> AsyncIterator[Simulation]:
    """`count` nodes that joined by themselves, `settle` seconds after the last of them."""
    rng = random.Random(seed)
    network = Network(link, rng)
    with mock.patch("lloom.adapters.dht.swarm.bind", network.bind):
        nodes = Simulation(network, rng, settings)
        try:
            for _ in range(count):
                await nodes.add()
            await asyncio.sleep(settle)
            yield nodes
        finally:
            for node in list(nodes.nodes):
                await nodes.kill(node)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """All randomness of the process from `seed`, but for the order of sets."""
    rng, state = random.Random(seed), random.getstate()
    random.seed(seed)
    with mock.patch("os.urandom", rng.randbytes), mock.patch("random._urandom", rng.randbytes):
        try:
            yield
        finally:
            random.setstate(state)


def run(work: Coroutine[Any, Any, Any], seed: int) -> Any:
    """What `work` returns, in virtual time."""
    with seeded(seed), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run `test` on a `VirtualLoop`, always with the same dice."""

    @functools.wraps(test)
    def plain(**fixtures: Any) -> None:
        run(test(**fixtures), seed=1)

    plain.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    del plain.__wrapped__  # type: ignore[attr-defined]
    return plain
