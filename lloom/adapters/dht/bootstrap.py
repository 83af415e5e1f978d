"""Getting into the network and staying in: bootstrap for ever, refresh the table, say what is wrong. It never gives up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable
from typing import Final

from loguru import logger

from lloom.adapters.dht.known import KnownPeers
from lloom.adapters.dht.seeds import Seeds
from lloom.adapters.dht.swarm import Swarm
from lloom.core.settings import DhtSettings, NetworkSettings

# The pause after the first failure; later ones are this share of the time for which it failed, up to `dht.bootstrap_seconds`:
# nodes that are started together find each other soon, and one that is away for long is not bothered.
FIRST_PAUSE: Final = 0.25
SHARE: Final = 0.1
# Peers of the last run, or hints, that are greeted at once.
GREETINGS: Final = 16
MOST_HINTS: Final = 64


class Bootstrap:
    """Keeps a swarm connected. As long as a configured node does not answer it is asked again, with back-off, for ever."""

    def __init__(
        self, swarm: Swarm, seeds: Seeds, known: KnownPeers, network: NetworkSettings, settings: DhtSettings
    ) -> None:
        self.ready = asyncio.Event()
        self.problem: str | None = None
        self.seeds = seeds
        self._swarm = swarm
        self._known = known
        self._network = network
        self._settings = settings
        self._inside = False
        self._hints: dict[tuple[str, int], None] = {}
        self._hinted = asyncio.Event()
        if not len(seeds):
            self.ready.set()

    def hint(self, host: str, port: int) -> None:
        """Somebody may be at this literal address: greeted soon."""
        if len(self._hints) < MOST_HINTS:
            self._hints[host, port] = None
            self._hinted.set()

    async def run(self, joined: Callable[[], None]) -> None:
        """Work for ever; calls `joined` whenever the node got in (again), or a validator came (back)."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for peer in self._known.load():
            self._hints.setdefault((peer.host, peer.port))
        while True:
            self._swarm.protocol.emptied.clear()
            self._hinted.clear()
            complete = await self._look_after(joined)
            if complete:
                began = loop.time()
                await self._rest(self._settings.table_refresh_seconds)
            else:
                patience = max(FIRST_PAUSE, (loop.time() - began) * SHARE)
                await self._rest(min(patience, self._settings.bootstrap_seconds))

    def close(self) -> None:
        """Keep who is known for the next start."""
        self._known.save(self._swarm.protocol.router)

    async def _look_after(self, joined: Callable[[], None]) -> bool:
        """One round: greet whoever of the seeds is missing, then refresh table and storage. True if nobody is missing."""
        problem, missing = None, False
        try:
            returned, missing = await self._join()
            problem = self._reason() if missing else None
            await self._refresh()
        except Exception as error:  # noqa: BLE001 - the boundary of this task: discovery must survive anything
            returned, missing, problem = [], True, f"an internal error ({type(error).__name__})"
            if problem != self.problem:
                logger.exception("Upkeep of the DHT failed; it will be tried again")
        self._report(problem, joined, news=bool(returned))
        return not missing

    async def _join(self) -> tuple[list[str], bool]:
        """Greet the missing seeds, and whoever we had a hint of; which seeds came back, and whether some are missing."""
        protocol = self._swarm.protocol
        returned = await self.seeds.greet(self.seeds.missing(protocol), protocol)
        hints = list(self._hints)[:GREETINGS]
        for hint in hints:
            del self._hints[hint]
        await asyncio.gather(*(protocol.greet(host, port) for host, port in hints))
        if len(protocol.router) or returned or not len(self.seeds):
            self.ready.set()
        return returned, any(seed.problem for seed in self.seeds.status)

    def _reason(self) -> str | None:
        """Why we are not in the network; None if some seed answers, or others do."""
        problems = [seed.problem for seed in self.seeds.status if seed.problem]
        if len(problems) < len(self.seeds) or len(self._swarm.protocol.router):
            return None
        return "; ".join(problems)

    async def _refresh(self) -> None:
        """Look up ourselves and a random id, which fills the table and finds out who is gone; forget expired records."""
        self._swarm.storage.expire()
        if len(self._swarm.protocol.router):
            for target in (self._swarm.node.id, os.urandom(20)):
                self._swarm.measure(target, await self._swarm.nearest(target))
            self._known.save(self._swarm.protocol.router)

    def _report(self, problem: str | None, joined: Callable[[], None], *, news: bool) -> None:
        """Say once what is wrong, and once when the node is in."""
        router, network = self._swarm.protocol.router, self._network.name
        if problem is not None and problem != self.problem:
            logger.warning("Not in the network {} yet, trying again: {}", network, problem)
        self.problem = problem
        inside = problem is None and len(router) > 0
        if inside and not self._inside:
            logger.info("In the network {}, with {} known nodes", network, len(router))
        if inside and (news or not self._inside):
            joined()
        self._inside = inside

    async def _rest(self, seconds: float) -> None:
        """About `seconds`: nodes started together should not stay in step. Less if the table empties, or on a hint."""
        events = [self._swarm.protocol.emptied, self._hinted]
        waiting = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds * random.uniform(0.8, 1.2)):  # noqa: S311
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
