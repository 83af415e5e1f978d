"""Who gets into the routing table, who moves within it, and who leaves it. It reads no datagram and answers none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kademlia.node import Node

from lloom.adapters.dht.handover import Handover
from lloom.adapters.dht.health import STRIKES, Health
from lloom.adapters.dht.introductions import Introductions
from lloom.adapters.dht.routing import Table
from lloom.adapters.dht.tasks import Tasks
from lloom.adapters.dht.wire import Sender

Ping = Callable[[Node], Awaitable[bytes | None]]
"""Asks whether a node is there and still itself; what comes of it is told to `answered` or `missed`."""


class Membership:
    """Keeps `router` and `health`. `handover` gives a new neighbour its records; None: it gets none from us now."""

    def __init__(
        self, router: Table, health: Health, tasks: Tasks, ping: Ping, handover: Callable[[], Handover | None]
    ) -> None:
        self._router = router
        self._health = health
        self._tasks = tasks
        self._ping = ping
        self._handover = handover
        self._introductions = Introductions(ping, tasks)
        self._moving: set[bytes] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def busy(self) -> bool:
        """Whether somebody is being asked back, or asked for at home."""
        return bool(self._moving or len(self._introductions))

    def met(self, sender: Sender) -> None:
        """Somebody asks. A stranger, or a contact that moved, is asked back: it is known only once it answers from there."""
        stranger = Node(sender.id, sender.host, sender.port)
        if sender.client:
            self._forget(stranger)
            return
        known = self._router.get(sender.id)
        if known is not None and known.same_home_as(stranger):
            return
        if not self._health.resting(stranger, self._loop.time()):
            self._introductions.begin(stranger)

    def answered(self, node: Node, seconds: float, *, client: bool) -> None:
        """`node` answered after `seconds`. `client`: it wants to be in no table."""
        self._health.answered(node, seconds)
        if client:
            self._router.remove_contact(node)
        else:
            self._welcome(node)

    def missed(self, node: Node) -> None:
        """A strike against `node`, which did not answer."""
        if self._health.missed(node, self._loop.time()):
            self._forget(node)

    def _welcome(self, node: Node) -> None:
        """Put `node`, which just answered from there, into the table; a new one gets the records that are now its to hold."""
        known = self._router.get(node.id)
        if known is not None and not known.same_home_as(node):
            if node.id not in self._moving:
                self._moving.add(node.id)
                self._tasks.spawn(self._move(known, node))
            return
        self._router.add_contact(node)
        handover = self._handover()
        if known is None and node.id in self._router and handover is not None and not handover.busy:
            self._tasks.spawn(handover.to(node))

    async def _move(self, known: Node, node: Node) -> None:
        """A contact answered from elsewhere. It is believed only where it is silent at home: somebody in between who passes on
        all datagrams could else draw it to his own address.
        """
        try:
            for _ in range(STRIKES):
                if await self._ping(known) is not None:
                    return
            self._forget(known)
            self._welcome(node)
        finally:
            self._moving.discard(node.id)

    def _forget(self, node: Node) -> None:
        """Take `node` out of the table, if that is where the table has it: elsewhere it may well live."""
        known = self._router.get(node.id)
        if known is not None and known.same_home_as(node):
            self._router.remove_contact(node)
