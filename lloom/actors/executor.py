"""The executor's head: knows its workers, signs what they offer, announces it. It runs no model and carries no request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from loguru import logger

from lloom import __version__
from lloom.actors.base import JOIN_SECONDS, Actor, patience, worn
from lloom.actors.listening import silence
from lloom.actors.place import Place
from lloom.actors.surroundings import TCP, UDP, surrounded
from lloom.adapters import figures
from lloom.adapters.anchors.inquiry import Whereabouts
from lloom.adapters.anchors.reach import Reach, reach
from lloom.adapters.anchors.registrar import Registrar
from lloom.adapters.bridge import Connection, Link, dial
from lloom.adapters.dht import Dht, addresses
from lloom.adapters.machine import home
from lloom.adapters.routing.pool import Pool
from lloom.core.bridge import certificate, hello
from lloom.core.bridge.certificate import Endorsement
from lloom.core.identity import Identity, NodeId
from lloom.core.messages import Hello, Limits
from lloom.core.offer import Endpoint, ModelOffer, Offer, fingerprint, seal
from lloom.core.payment.domain import active, payment
from lloom.core.reachability import Reachability
from lloom.core.roster import Roster

POLL_SECONDS: Final = 5.0
"""A worker asks for the offer at least this often: that is its sign of life."""
PATIENCE_SECONDS: Final = 3 * POLL_SECONDS
"""A worker restarts within 3 seconds; one that was silent this long is no longer offered."""


class ExecutorNode(Actor):
    """Owns the executor's key: endorses its workers' certificates and signs the offer."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._identity: Identity | None = None
        self._roster = Roster(PATIENCE_SECONDS)
        self._sealed = b""
        network = place.settings.network
        self._reachability = Reachability(network.relay, network.advertise or network.host)
        self._anchors: Callable[[], Collection[Whereabouts]] = tuple
        self._seq = 0
        self._signed = 0.0
        self._stale = asyncio.Event()
        self._renewed = asyncio.Condition()

    async def run(self) -> None:
        settings = self.place.settings
        self._identity = self.place.identity()
        async with AsyncExitStack() as stack:
            folder = home.folder(settings)
            client = not self._reachability.dialled
            dht = await Dht.start(self._identity, settings.network, settings.dht, client=client, folder=folder)
            self._anchors = lambda: dht.anchors
            stack.push_async_callback(dht.stop)
            pool = self._pool(self._identity)
            stack.push_async_callback(pool.close)
            registrar = Registrar(lambda: dht.anchors, pool)
            await stack.enter_async_context(
                surrounded(self.place, dht, self._ports(), partial(self._figures, dht, pool))
            )
            await self.until_stopped(self._announce(dht, registrar), registrar.run(), self._watch_reach(dht, pool))
            await self._withdraw(dht, registrar)

    async def endorse(self, public_hash: bytes) -> Endorsement:
        """The node's word for a worker's TLS key."""
        place = self.place
        lifetime = place.settings.bridge.certificate_seconds
        return certificate.endorse(self._key(), place.settings.network.name, public_hash, time.time(), lifetime)

    async def enlist(self, worker: str, endpoint: Endpoint, models: tuple[ModelOffer, ...]) -> None:
        """Takes a worker in; the offer changes at once if that changes what is served."""
        if self._roster.enlist(worker, endpoint, models, time.monotonic()):
            self._stale.set()

    async def greet(self, audience: hello.Audience, limits: Limits) -> Hello:
        """A HELLO for a worker that dials a validator."""
        return hello.greet(self._key(), audience, limits, time.time())

    async def relays(self, worker: str, held: tuple[Endpoint, ...], port: int) -> tuple[Whereabouts, ...]:
        """Notes through which relays the worker at `port` is reached; where it should be relayed (nowhere: it need not)."""
        if self._roster.relayed(worker, held):
            self._stale.set()
        return () if self._reachability.direct(port) else tuple(self._anchors())

    async def offer(self, worker: str, seen: int) -> tuple[int, bytes] | None:
        """Number and sealed form of an offer other than number `seen`; after a while `seen` and nothing. None: enlist first."""
        if not self._roster.heard(worker, time.monotonic()):
            return None
        try:
            async with asyncio.timeout(POLL_SECONDS), self._renewed:
                # Not "greater": after a restart the wall clock, and the numbers with it, may be behind.
                await self._renewed.wait_for(lambda: self._seq not in (0, seen) and not self._expired)
        except TimeoutError:
            self._roster.heard(worker, time.monotonic())
            return seen, b""
        return self._seq, self._sealed

    async def _announce(self, dht: Dht, registrar: Registrar) -> None:
        """Signs and announces the offer whenever it changes, and before it would expire."""
        await patience(dht.ready, JOIN_SECONDS)
        while True:
            silent = self._roster.expire(time.monotonic())
            for worker in silent:
                logger.warning("{} fell silent and is no longer offered", worker)
            changed = bool(silent) or self._stale.is_set()
            self._stale.clear()
            if self._roster.models() and self._reachability.ways(self._roster):
                if changed or worn(self._signed, self._lifetime):
                    await self._publish(dht, registrar)
            elif changed:  # nobody works here now, or no backend is there
                await self._withdraw(dht, registrar)
                if self._roster.ports():
                    self.up("offers nothing yet; it will as soon as a backend is there")
            await patience(self._stale, POLL_SECONDS)

    async def _watch_reach(self, dht: Dht, pool: Pool) -> None:
        """Has validators try, now and then, whether our workers can be dialled, and changes the offer accordingly.

        Who cannot be dialled over TCP is no good contact over UDP either: routers treat both alike.
        """
        settings = self.place.settings
        while settings.network.relay == "auto":
            ports = self._roster.ports()
            found = await self._reach(pool, ports) if ports else None
            if found is not None and self._reachability.found(found.ports, ports, found.host):
                logger.info("validators reach {} of our {} ports", len(found.ports & ports), len(ports))
                dht.serve(self._reachability.dialled)
                self._stale.set()
            await asyncio.sleep(POLL_SECONDS if found is None else settings.relay.check_seconds)

    async def _reach(self, pool: Pool, ports: frozenset[int]) -> Reach | None:
        """What validators reach. That they fail is believed the second time: a worker may just be starting again."""
        network = self.place.settings.network
        sensible = addresses.Reach.of(network.host, network.private)
        found = await reach(pool, self._anchors(), ports, sensible.fits)
        if found is None or found.ports >= ports:
            return found
        await asyncio.sleep(POLL_SECONDS)
        return await reach(pool, self._anchors(), ports, sensible.fits)

    @property
    def _lifetime(self) -> float:
        """Of an offer: catalogues show one that died without goodbye no longer than the DHT does."""
        return self.place.settings.dht.record_ttl_seconds

    @property
    def _expired(self) -> bool:
        return time.time() >= self._signed + self._lifetime - 1

    async def _publish(self, dht: Dht, registrar: Registrar) -> None:
        models, endpoints = self._roster.models(), self._reachability.ways(self._roster)
        async with self._renewed:
            self._sealed, self._signed = self._seal(models, endpoints), time.time()
            self._renewed.notify_all()
        sealed = self._sealed
        registrar.say(sealed)
        stored = await dht.announce([model.id for model in models], endpoints, fingerprint(sealed))
        names = ", ".join(model.id for model in models)
        logger.debug("announced {} at {} nodes", names, stored)
        problem = f"; {dht.status.problem}" if dht.status.problem else ""
        self.up(
            f"announces {names} from port {dht.port} (UDP), known to {stored} other node{'s' * (stored != 1)}{problem}"
        )

    async def _withdraw(self, dht: Dht, registrar: Registrar) -> None:
        """Takes back what is offered: in the DHT, and in the catalogues by an offer of nothing."""
        goodbye = self._seal((), ())
        registrar.say(goodbye)
        await asyncio.gather(dht.withdraw(), registrar.goodbye(goodbye))

    def _seal(self, models: tuple[ModelOffer, ...], endpoints: tuple[Endpoint, ...]) -> bytes:
        """A new signed offer, later than all before it."""
        now = time.time()
        self._seq = max(self._seq + 1, int(now * 1000))
        payments = tuple(map(payment, active(self.place.settings).values()))
        offer = Offer(
            executor=self.place.node,
            seq=self._seq,
            expires=int(now + self._lifetime),
            endpoints=endpoints,
            models=models,
            software=f"lloom/{__version__}",
            payments=payments,
            window=self.place.settings.accounting.window if payments else 0,
        )
        return seal(offer, self._key(), self.place.settings.network.name)

    def _pool(self, identity: Identity) -> Pool:
        """Connections to validators, from where our workers listen: that is the address which validators dial back."""
        settings = self.place.settings
        link = Link(identity, settings.network.name, settings.bridge, source=settings.network.host)

        async def to_validator(endpoint: Endpoint, validator: NodeId) -> Connection:
            return await dial(endpoint, validator, link, silence)

        return Pool(to_validator, settings.bridge.connections)

    def _ports(self) -> tuple[tuple[str, int], ...]:
        """Where strangers dial this node; none if they are not to know."""
        settings = self.place.settings
        if self._reachability.hidden:
            return ()
        first = settings.network.port
        return ((UDP, first), *((TCP, first + number) for number in range(settings.executor.workers)))

    def _figures(self, dht: Dht, pool: Pool) -> dict[str, float]:
        """What this executor shows to Prometheus."""
        models = self._roster.models()
        return {
            **figures.dht(dht.status),
            "bridge_dialled": pool.connections,
            "executor_workers": len(self._roster.ports()),
            "executor_models": len(models),
        }

    def _key(self) -> Identity:
        if self._identity is None:
            self._identity = self.place.identity()
        return self._identity
