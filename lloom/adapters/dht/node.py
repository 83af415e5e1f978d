"""The DHT as the rest of the node sees it: announce, withdraw, find executors and their endpoints. It never dials them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lloom.adapters.dht.addresses import Reach, parse
from lloom.adapters.dht.announcer import Announcer
from lloom.adapters.dht.bootstrap import Bootstrap
from lloom.adapters.dht.known import KnownPeers
from lloom.adapters.dht.seeds import Seed, Seeds
from lloom.adapters.dht.storage import Clock
from lloom.adapters.dht.swarm import Swarm
from lloom.adapters.dht.tasks import Tasks
from lloom.adapters.dht.wire import Envelope
from lloom.core.errors import ConfigError
from lloom.core.identity import Identity, NodeId
from lloom.core.offer import Endpoint
from lloom.core.records import index_key, offer_body, offer_key
from lloom.core.settings import DhtSettings, NetworkSettings

# Shards of a popular model that are searched at once: each search keeps a dozen queries in flight.
SHARDS_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Contact:
    """How an executor is reached. `fingerprint`: 32 bytes that name its signed offer; `seq` grows with every announcement."""

    endpoints: tuple[Endpoint, ...]
    fingerprint: bytes
    seq: int


@dataclass(frozen=True, slots=True)
class DhtStatus:
    """For health checks and metrics. Times in seconds over the latest lookups, 0 if there was none."""

    peers: int
    records: int
    problem: str | None
    """Why the last try to get into the network failed; None if it did not."""
    rejected: int
    """Malformed datagrams and invalid records so far."""
    lookups: int
    lookup_p50: float
    lookup_p99: float
    observed: str | None
    """The host at which others see this node; None while nobody said so."""
    clock_offset: float | None
    """Seconds by which our clock is behind the network's; None while it serves, or nobody knows."""
    clocks: tuple[float, ...]
    """By how many seconds each clock we heard of is ahead of ours: one voice for each subnet, believed or not."""
    estimated_size: int
    """Nodes in the network, as far as can be told."""
    crowded: int
    """Lookups whose key was crowded by ids, more than chance explains."""
    bootstrap: tuple[Seed, ...]
    """The validators of the configuration, one by one."""


class Dht:
    """One node of the DHT. `client`: it asks and announces, but holds nothing for others and is in nobody's routing table.
    With `network.relay=only` a client talks to the validators of the configuration only; nobody else learns where it is.
    """

    def __init__(
        self, swarm: Swarm, bootstrap: Bootstrap, announcer: Announcer, network: NetworkSettings, settings: DhtSettings
    ) -> None:
        """Of parts that fit together; `start` makes them."""
        self._swarm = swarm
        self._bootstrap = bootstrap
        self._announcer = announcer
        self._network = network.name
        self._patience = settings.lookup_seconds
        self._shards = settings.shards
        self._full = settings.records_per_key // 2
        self._tasks = Tasks()

    @classmethod
    async def start(
        cls,
        identity: Identity,
        network: NetworkSettings,
        settings: DhtSettings,
        *,
        client: bool,
        clock: Clock = time.time,
        folder: Path | None = None,
    ) -> Dht:
        """Bind UDP at once, and get into the network in the background, for ever. `clock` gives Unix seconds; `folder` keeps
        known peers for the next start (None: they are not kept).

        ConfigError if the address cannot be bound, or settings contradict each other.
        """
        host = await _literal(network.host)
        reach = Reach.of(host, network.private)
        seeds = Seeds(network, reach, settings.lookup_seconds)
        only = (lambda: seeds.homes) if client and network.relay == "only" else None
        envelope = Envelope.of(identity, network.name, reach, client, clock, only)
        swarm = Swarm(identity.address, network.name, settings, envelope, clock)
        swarm.validators = lambda: seeds.anchors
        bootstrap = Bootstrap(swarm, seeds, KnownPeers(folder, network.name, reach), network, settings)
        announcer = Announcer(swarm, identity, network.name, settings, clock)
        try:
            await swarm.listen(network.port, host)
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(
                f"network.port: cannot listen on {network.host}:{network.port} (UDP): {reason}"
            ) from error
        dht = cls(swarm, bootstrap, announcer, network, settings)
        dht._tasks.spawn(bootstrap.run(announcer.refresh_soon))
        dht._tasks.spawn(announcer.run())
        return dht

    @property
    def port(self) -> int:
        """The UDP port this node listens on."""
        return self._swarm.port

    @property
    def peers(self) -> int:
        """How many nodes are in the routing table."""
        return len(self._swarm.protocol.router)

    @property
    def ready(self) -> asyncio.Event:
        """Set once somebody answered, or at once where there is nobody to ask."""
        return self._bootstrap.ready

    @property
    def status(self) -> DhtStatus:
        """A snapshot."""
        times = sorted(self._swarm.lookup_seconds)
        return DhtStatus(
            peers=self.peers,
            records=self._swarm.storage.count,
            problem=self._bootstrap.problem,
            rejected=self._swarm.protocol.rejected,
            lookups=self._swarm.lookups,
            lookup_p50=statistics.median(times) if times else 0.0,
            lookup_p99=times[len(times) * 99 // 100] if times else 0.0,
            observed=self._swarm.protocol.observed,
            clock_offset=self._swarm.protocol.clock_offset,
            clocks=self._swarm.protocol.clocks,
            estimated_size=self._swarm.estimated_size,
            crowded=self._swarm.crowded,
            bootstrap=self._bootstrap.seeds.status,
        )

    @property
    def anchors(self) -> tuple[tuple[NodeId, Endpoint], ...]:
        """The validators of the configuration that are known, and where they listen (UDP and TCP), ourselves not among them."""
        own = self._swarm.node.id
        return tuple(each for each in self._bootstrap.seeds.anchors if each[0] != own)

    def fits(self, host: str) -> bool:
        """Whether the literal address `host` makes sense from here: strangers may name machines that are none of theirs."""
        address = parse(host)
        return address is not None and self._swarm.reach.fits(address)

    def hint(self, host: str, port: int) -> None:
        """Somebody may be at this literal address."""
        self._bootstrap.hint(host, port)

    def prefer(self, vouched: Callable[[NodeId], bool]) -> None:
        """Keep records of those first whom somebody vouches for."""
        self._swarm.storage.vouched = vouched

    def serve(self, serves: bool) -> None:
        """From now on be in routing tables and hold records for others, or not. A node that hides never does."""
        self._swarm.serve(serves)

    async def announce(self, models: Sequence[str], endpoints: Sequence[Endpoint], fingerprint: bytes) -> int:
        """Say what this executor serves and where, instead of what it said before; it is refreshed until `withdraw`.

        `models`: canonical ids; `endpoints`: the first eight are told, the signed offer has all; `fingerprint`: 32 bytes.
        Returns how many other nodes hold it, the smallest number if it differs; 0 is tried again soon.
        ValueError if an endpoint's host is no literal address.
        """
        return await self._announcer.announce(models, endpoints, fingerprint)

    async def withdraw(self) -> None:
        """Take back what was announced."""
        await self._announcer.withdraw()

    async def executors(self, model: str) -> list[NodeId]:
        """Who serves `model` (a canonical id; "*" for all executors), in no order. Waits a little for `ready`."""
        await self._wait_until_ready()
        found = set(await self._swarm.find(index_key(self._network, model), want=None))
        if len(found) >= self._full:
            found |= await self._in_shards(model)
        return list(found)

    async def contact(self, executor: NodeId) -> Contact | None:
        """How `executor` is reached, None if it does not say or no endpoint makes sense from here. Waits a little for `ready`."""
        await self._wait_until_ready()
        found = await self._swarm.find(offer_key(self._network, executor), want=None)
        if executor not in found:
            return None
        record = found[executor].record
        body = offer_body(record)
        endpoints = tuple(endpoint for endpoint in body.endpoints if self.fits(endpoint.host))
        return Contact(endpoints, body.fingerprint, record.seq) if endpoints else None

    async def _in_shards(self, model: str) -> set[NodeId]:
        """Who serves a model that is too popular for one key."""
        places = asyncio.Semaphore(SHARDS_AT_ONCE)

        async def one(shard: int) -> set[NodeId]:
            async with places:
                return set(await self._swarm.find(index_key(self._network, model, shard), want=None))

        return set().union(*await asyncio.gather(*map(one, range(1, self._shards + 1))))

    async def stop(self) -> None:
        """Say goodbye to those who hold our records, if that can be done within `dht.lookup_seconds`, and close the socket."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                await self.withdraw()
        await self._tasks.close()
        self._bootstrap.close()
        await self._swarm.close()

    async def _wait_until_ready(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                await self.ready.wait()


async def _literal(host: str) -> str:
    """`host`, a name or an address of this machine, as a literal address; ConfigError if it is neither."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise ConfigError(
            f"network.host: {host!r} is no address of this machine ({error.strerror or error})"
        ) from error
    return str(found[0][4][0])
