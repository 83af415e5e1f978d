"""The executor's head: knows its workers, signs what they offer, announces it. It runs no model and carries no request."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from loguru import logger

from lloom import __version__
from lloom.actors.base import JOIN_SECONDS, Actor, patience
from lloom.actors.place import Place
from lloom.adapters.dht import Dht
from lloom.core import certificate
from lloom.core.certificate import Endorsement
from lloom.core.identity import Identity
from lloom.core.offer import Endpoint, ModelOffer, Offer, fingerprint, seal
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
        self._seq = 0
        self._stale = asyncio.Event()
        self._renewed = asyncio.Condition()

    async def run(self) -> None:
        settings = self.place.settings
        self._identity = self.place.identity()
        dht = await Dht.start(self._identity, settings.network, settings.dht, client=False)
        try:
            async with asyncio.TaskGroup() as group:
                announcing = group.create_task(self._announce(dht))
                await self.stopping.wait()
                announcing.cancel()
        finally:
            await dht.withdraw()
            await dht.stop()

    async def endorse(self, public_hash: bytes) -> Endorsement:
        """The node's word for a worker's TLS key."""
        place = self.place
        lifetime = place.settings.bridge.certificate_seconds
        return certificate.endorse(self._key(), place.settings.network.name, public_hash, time.time(), lifetime)

    async def enlist(self, worker: str, endpoint: Endpoint, models: tuple[ModelOffer, ...]) -> None:
        """Takes a worker in; the offer changes at once if that changes what is served."""
        if self._roster.enlist(worker, endpoint, models, time.time()):
            self._stale.set()

    async def offer(self, worker: str, seen: int) -> tuple[int, bytes] | None:
        """The sealed offer and its number once it is newer than `seen`, or after a while anyway; None: enlist first."""
        if not self._roster.heard(worker, time.time()):
            return None
        try:
            async with asyncio.timeout(POLL_SECONDS), self._renewed:
                await self._renewed.wait_for(lambda: self._seq > seen)
        except TimeoutError:
            self._roster.heard(worker, time.time())
        return self._seq, self._sealed

    async def _announce(self, dht: Dht) -> None:
        """Signs and announces the offer whenever it changes, and before it would expire."""
        await patience(dht.ready, JOIN_SECONDS)
        half_life = self.place.settings.dht.record_ttl_seconds
        due = 0.0
        while True:
            silent = self._roster.expire(time.time())
            for worker in silent:
                logger.warning("{} fell silent and is no longer offered", worker)
            if self._roster.endpoints() and (silent or self._stale.is_set() or time.monotonic() >= due):
                self._stale.clear()
                await self._publish(dht, lifetime=2 * half_life)
                due = time.monotonic() + half_life
            await self._next_change()

    async def _next_change(self) -> None:
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._stale.wait()
        except TimeoutError:
            return

    async def _publish(self, dht: Dht, lifetime: float) -> None:
        now = time.time()
        models, endpoints = self._roster.models(), self._roster.endpoints()
        offer = Offer(
            executor=self.place.node,
            seq=int(now * 1000),
            expires=int(now + lifetime),
            endpoints=endpoints,
            models=models,
            software=f"lloom/{__version__}",
        )
        sealed = seal(offer, self._key(), self.place.settings.network.name)
        async with self._renewed:
            self._seq, self._sealed = offer.seq, sealed
            self._renewed.notify_all()
        stored = await dht.announce([model.id for model in models], endpoints, fingerprint(sealed))
        names = ", ".join(model.id for model in models)
        logger.debug("announced {} at {} nodes", names, stored)
        problem = f"; {dht.status.problem}" if dht.status.problem else ""
        self.up(f"announces {names} from port {dht.port} (UDP), {stored} other nodes hold it{problem}")

    def _key(self) -> Identity:
        if self._identity is None:
            self._identity = self.place.identity()
        return self._identity
