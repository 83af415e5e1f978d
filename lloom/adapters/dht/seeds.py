"""The validators that the configuration names: where they are, who they are, whether they answer. It joins nothing by itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lloom.adapters.dht.addresses import Reach, parse
from lloom.adapters.dht.protocol import Protocol
from lloom.core import anchor
from lloom.core.anchor import Anchor
from lloom.core.errors import ConfigError
from lloom.core.identity import NodeId, checksum
from lloom.core.offer import Endpoint
from lloom.core.settings import NetworkSettings

MOST: Final = 8
"""Every record is stored at, and every lookup asks, all of them."""


@dataclass(frozen=True, slots=True)
class Seed:
    """One entry of `network.bootstrap`: who is there, or why nobody is; how long it took to answer (seconds)."""

    where: str
    node: NodeId | None
    problem: str | None
    seconds: float | None


@dataclass(slots=True)
class _State:
    anchor: Anchor
    node: NodeId | None
    home: tuple[str, int] | None = None
    problem: str | None = "it was not asked yet"
    seconds: float | None = None


class Seeds:
    """All entries of `network.bootstrap`. ConfigError if one is none, or there are too many."""

    def __init__(self, network: NetworkSettings, reach: Reach, patience: float) -> None:
        """`patience`: seconds for resolving a name."""
        anchors = {where: anchor.parse(where) for where in network.bootstrap}
        if len(anchors) > MOST:
            raise ConfigError(f"network.bootstrap: at most {MOST} validators can be named")
        self._network = network
        self._reach = reach
        self._patience = patience
        self._states = {where: _State(each, each.address) for where, each in anchors.items()}

    def __len__(self) -> int:
        return len(self._states)

    @property
    def status(self) -> tuple[Seed, ...]:
        """How each fared when it was asked last."""
        return tuple(Seed(where, each.node, each.problem, each.seconds) for where, each in self._states.items())

    @property
    def anchors(self) -> tuple[tuple[NodeId, Endpoint], ...]:
        """Those who are known, and where they are."""
        known: dict[NodeId, Endpoint] = {}
        for state in self._states.values():
            if state.node is not None and state.home is not None:
                known.setdefault(state.node, Endpoint(*state.home))
        return tuple(known.items())

    @property
    def homes(self) -> frozenset[tuple[str, int]]:
        """Where they all are, as far as names could be resolved: known or not."""
        return frozenset(state.home for state in self._states.values() if state.home is not None)

    def missing(self, protocol: Protocol) -> list[str]:
        """Those that are not in the routing table."""
        here = {(node.ip, node.port) for node in protocol.router}
        return [where for where, state in self._states.items() if state.home not in here or state.problem is not None]

    async def greet(self, which: Sequence[str], protocol: Protocol) -> list[str]:
        """Ping these; who answers now and did not the last time. One that is this very node is taken off the list."""
        before = {where: self._states[where].problem for where in which}
        await asyncio.gather(*(self._greet(where, protocol) for where in which))
        return [
            where for where in which if where in self._states and self._states[where].problem is None and before[where]
        ]

    async def _greet(self, where: str, protocol: Protocol) -> None:
        state = self._states[where]
        address, problem = await self._resolve(state.anchor.host)
        if address is None:
            state.problem = f"{where}: {problem}"
            return
        state.home = address, state.anchor.port
        loop = asyncio.get_running_loop()
        began = loop.time()
        found = await protocol.greet(address, state.anchor.port)
        if found is not None and found == protocol.source_node.id:
            del self._states[where]
            return
        state.seconds = loop.time() - began if found is not None else None
        state.problem = self._judge(where, state, found)
        if state.problem is None and found is not None:
            state.node = NodeId(found)

    def _judge(self, where: str, state: _State, found: bytes | None) -> str | None:
        """What is wrong with the answer of `found` (None: nobody answered)."""
        if found is None:
            return f"no node of the network {self._network.name!r} answers at {state.anchor} (UDP)"
        pinned = state.anchor.address
        if pinned is not None and found != pinned:
            return f"the node at {state.anchor} is {checksum(NodeId(found))}, not {checksum(pinned)} as {where} says"
        return None

    async def _resolve(self, host: str) -> tuple[str | None, str]:
        """A literal address of `host` that we can reach, or None and why not."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._patience):
                found = await loop.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        except TimeoutError:
            return None, "its name could not be resolved in time"
        except OSError as error:
            return None, f"its name could not be resolved ({error.strerror or error})"
        addresses = [str(entry[4][0]) for entry in found]
        usable = next((a for a in addresses if self._reach.accepts(a, 1)), None)
        return usable, f"cannot be reached from network.host={self._network.host}" + self._hint(addresses)

    def _hint(self, addresses: list[str]) -> str:
        loopback = all((address := parse(a)) is not None and address.is_loopback for a in addresses)
        if loopback and not self._reach.loopback:
            return ", for it is a loopback address (nodes of one machine listen on 127.0.0.1)"
        if self._reach.loopback:
            return ", which is a loopback address"
        return "" if self._reach.private else ", which takes no addresses of private networks (network.private)"
