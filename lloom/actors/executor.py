"""The executor's head: knows its workers, signs what they offer, announces it. It runs no model and carries no request."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from loguru import logger

from lloom import __version__
from lloom.actors.base import JOIN_SECONDS, Actor, patience, worn
from lloom.actors.place import Place
from lloom.adapters.dht import Dht
from lloom.core.bridge import certificate
from lloom.core.bridge.certificate import Endorsement
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
        self._signed = 0.0
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
        if self._roster.enlist(worker, endpoint, models, time.monotonic()):
            self._stale.set()

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

    async def _announce(self, dht: Dht) -> None:
        """Signs and announces the offer whenever it changes, and before it would expire."""
        await patience(dht.ready, JOIN_SECONDS)
        while True:
            silent = self._roster.expire(time.monotonic())
            for worker in silent:
                logger.warning("{} fell silent and is no longer offered", worker)
            changed = bool(silent) or self._stale.is_set()
            self._stale.clear()
            if self._roster.endpoints():
                if changed or worn(self._signed, self._lifetime):
                    await self._publish(dht)
            elif changed:  # nobody works here now
                await dht.withdraw()
            await patience(self._stale, POLL_SECONDS)

    @property
    def _lifetime(self) -> float:
        return 2 * self.place.settings.dht.record_ttl_seconds

    @property
    def _expired(self) -> bool:
        return time.time() >= self._signed + self._lifetime - 1

    async def _publish(self, dht: Dht) -> None:
        now = time.time()
        models, endpoints = self._roster.models(), self._roster.endpoints()
        offer = Offer(
            executor=self.place.node,
            seq=max(self._seq + 1, int(now * 1000)),
            expires=int(now + self._lifetime),
            endpoints=endpoints,
            models=models,
            software=f"lloom/{__version__}",
        )
        sealed = seal(offer, self._key(), self.place.settings.network.name)
        async with self._renewed:
            self._seq, self._sealed, self._signed = offer.seq, sealed, now
            self._renewed.notify_all()
        stored = await dht.announce([model.id for model in models], endpoints, fingerprint(sealed))
        names = ", ".join(model.id for model in models)
        logger.debug("announced {} at {} nodes", names, stored)
        problem = f"; {dht.status.problem}" if dht.status.problem else ""
        self.up(
            f"announces {names} from port {dht.port} (UDP), known to {stored} other node{'s' * (stored != 1)}{problem}"
        )

    def _key(self) -> Identity:
        if self._identity is None:
            self._identity = self.place.identity()
        return self._identity
