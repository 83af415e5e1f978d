"""Getting into the network and staying in: bootstrap for ever, refresh the table, say what is wrong. It never gives up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Callable
from typing import Final

from loguru import logger

from lloom.adapters.dht.addresses import Reach, parse, split
from lloom.adapters.dht.swarm import Swarm
from lloom.core.settings import DhtSettings, NetworkSettings

# The pause after the first failure; it doubles up to `dht.bootstrap_seconds`.
FIRST_PAUSE: Final = 0.25


class Bootstrap:
    """Keeps a swarm connected. As long as none of the configured nodes answers it tries again, with back-off, for ever."""

    def __init__(self, swarm: Swarm, network: NetworkSettings, settings: DhtSettings, reach: Reach) -> None:
        """ConfigError if an entry of `network.bootstrap` is not `host:port`."""
        self.ready = asyncio.Event()
        self.problem: str | None = None
        self._swarm = swarm
        self._network = network
        self._settings = settings
        self._reach = reach
        self._inside = False
        # Where seeds answered: literal addresses, whatever the configuration calls them.
        self._answering: set[tuple[str, int]] = set()
        self._seeds = dict(zip(network.bootstrap, map(split, network.bootstrap), strict=True))
        if not self._seeds:
            self.ready.set()

    async def run(self, joined: Callable[[], None]) -> None:
        """Work for ever; calls `joined` whenever the node got in (again)."""
        pause = FIRST_PAUSE
        while True:
            self._swarm.protocol.emptied.clear()
            problem = await self._look_after()
            self._report(problem, joined)
            if problem is None:
                pause = FIRST_PAUSE
                await self._rest(self._settings.table_refresh_seconds)
            else:
                await self._rest(pause)
                pause = min(2 * pause, self._settings.bootstrap_seconds)

    async def _look_after(self) -> str | None:
        """One round: join if no seed is known any more, then refresh table and storage. The reason if we are not in."""
        problem = None
        try:
            if not self._knows_a_seed():
                problem = await self._join()
            await self._refresh()
        except Exception as error:  # noqa: BLE001 - the boundary of this task: discovery must survive anything
            problem = f"an internal error ({type(error).__name__})"
            if problem != self.problem:
                logger.exception("Upkeep of the DHT failed; it will be tried again")
        if len(self._swarm.protocol.router):
            self.ready.set()
        return problem

    async def _join(self) -> str | None:
        """Ping all seeds; the reason if none answered."""
        reasons = await asyncio.gather(*(self._greet(where) for where in list(self._seeds)))
        if self._seeds and all(reasons):
            return "; ".join(reason for reason in reasons if reason)
        self.ready.set()
        return None

    async def _greet(self, where: str) -> str | None:
        """Ping the seed `where`; why that failed, if it did. A seed that is this very node is taken off the list."""
        host, port = self._seeds[where]
        address, reason = await self._resolve(host)
        if address is None:
            return f"{where}: {reason}"
        node_id = await self._swarm.protocol.greet(address, port)
        if node_id is None:
            return f"no node of the network {self._network.name!r} answers at {where} (UDP)"
        self._answering.add((address, port))
        if node_id == self._swarm.node.id:
            del self._seeds[where]
        return None

    async def _resolve(self, host: str) -> tuple[str | None, str]:
        """A literal address of `host` that we can reach, or None and why not."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._settings.lookup_seconds):
                found = await loop.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        except TimeoutError:
            return None, "its name could not be resolved in time"
        except OSError as error:
            return None, f"its name could not be resolved ({error.strerror or error})"
        addresses = [str(entry[4][0]) for entry in found]
        usable = next((a for a in addresses if self._reach.accepts(a, 1)), None)
        return usable, f"cannot be reached from network.host={self._network.host}" + self._hint(addresses)

    def _hint(self, addresses: list[str]) -> str:
        if (
            all((address := parse(a)) is not None and address.is_loopback for a in addresses)
            and not self._reach.loopback
        ):
            return ", for it is a loopback address (nodes of one machine listen on 127.0.0.1)"
        return ", which is a loopback address" if self._reach.loopback else ""

    def _knows_a_seed(self) -> bool:
        """True if a configured node is in the table, or there is none to look for."""
        router = self._swarm.protocol.router
        return not self._seeds or any((node.ip, node.port) in self._answering for node in router)

    async def _refresh(self) -> None:
        """Look up ourselves and a random id, which fills the table and finds out who is gone; forget expired records."""
        self._swarm.storage.expire()
        if len(self._swarm.protocol.router):
            await self._swarm.nearest(self._swarm.node.id)
            await self._swarm.nearest(os.urandom(20))

    def _report(self, problem: str | None, joined: Callable[[], None]) -> None:
        """Say once what is wrong, and once when the node is in."""
        router, network = self._swarm.protocol.router, self._network.name
        if problem is not None and problem != self.problem:
            logger.warning("Not in the network {} yet, trying again: {}", network, problem)
        self.problem = problem
        inside = problem is None and len(router) > 0
        if inside and not self._inside:
            logger.info("In the network {}, with {} known nodes", network, len(router))
            joined()
        self._inside = inside

    async def _rest(self, seconds: float) -> None:
        """About `seconds`, so that nodes started together do not stay in step; less if the table empties."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds * random.uniform(0.8, 1.2)):  # noqa: S311
                await self._swarm.protocol.emptied.wait()
