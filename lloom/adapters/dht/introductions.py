"""Strangers being asked back before they are known, a bounded number at once. It never decides who is a stranger."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from kademlia.node import Node

from lloom.adapters.dht.addresses import subnet
from lloom.adapters.dht.tasks import Tasks
from lloom.core.identity import NodeId

# What strangers can make us hold.
MAX_AT_ONCE: Final = 32
# Of one subnet, so that strangers from elsewhere get their turn too.
MAX_PER_SUBNET: Final = 4


class Introductions:
    """`ping` asks a node back; its answer makes it known. Whoever finds no place asks again some day."""

    def __init__(self, ping: Callable[[Node], Awaitable[object]], tasks: Tasks) -> None:
        self._ping = ping
        self._tasks = tasks
        self._under_way: dict[NodeId, str] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def begin(self, stranger: Node) -> None:
        """Ask `stranger` back, unless that is under way or too many are."""
        source, others = subnet(stranger.ip, stranger.port), list(self._under_way.values())
        if stranger.id in self._under_way or len(others) >= MAX_AT_ONCE or others.count(source) >= MAX_PER_SUBNET:
            return
        self._under_way[stranger.id] = source
        self._tasks.spawn(self._introduce(stranger))

    async def _introduce(self, stranger: Node) -> None:
        try:
            await self._ping(stranger)
        finally:
            del self._under_way[stranger.id]
