"""A role is a set of actors: start the cluster, spawn, connect, supervise, stop. What an actor does stands in actors/."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from lloom.actors import cluster
from lloom.adapters import keyagent, relay
from lloom.adapters.daemon import DaemonThread
from lloom.adapters.guard import STOP
from lloom.adapters.home import only_one
from lloom.adapters.terminal import Terminal
from lloom.core.errors import LloomError
from lloom.core.identity import Identity, checksum
from lloom.core.settings import Settings

INTERRUPTED: Final = 130
STOP_SECONDS: Final = 5.0
"""What stopping an actor may take beyond the drain times of the settings."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Node:
    """One node to run: its settings, role included, and who it is."""

    settings: Settings
    identity: Identity


@dataclass(frozen=True, slots=True)
class Running:
    """What runs now, for whoever uses it."""

    gateway: str | None
    """`http://host:port` of the client node, if there is one."""
    dashboard: str | None
    """URL of Ray's dashboard, which asks for the token in `token_file`."""
    token_file: Path


class Stopped(LloomError):
    """Raised when a signal asks the node to stop while it is still starting."""


Then = Callable[[Running], Awaitable[int]]
"""What to do with the running nodes before they stop again; its result is the exit status."""


def run(nodes: Sequence[Node], folder: Path, then: Then | None = None) -> int:
    """Runs `nodes` in one Ray cluster until the guard says STOP or `then` has ended; the exit status.

    `folder` is private to this run and removed by the caller. LloomError says in one sentence why it could not go on.
    """
    return asyncio.run(_run(nodes, folder, then))


async def _run(nodes: Sequence[Node], folder: Path, then: Then | None) -> int:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(STOP, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        for node in nodes:
            stack.enter_context(only_one(node.settings))
        await stack.enter_async_context(relay.listening(folder / "log"))
        house = House(nodes, folder, Terminal())
        try:
            await _unless(stop, house.open())
            return await house.until_done(stop, then)
        except Stopped:
            house.terminal.say("stopped while starting")
            return INTERRUPTED
        finally:
            await house.close()


class House:
    """The cluster and the actors of all nodes in it."""

    def __init__(self, nodes: Sequence[Node], folder: Path, terminal: Terminal) -> None:
        self.terminal = terminal
        self._nodes = nodes
        self._folder = folder
        self._ray = nodes[0].settings.ray
        self._thread = DaemonThread("ray")
        self._agents: list[asyncio.Server] = []
        self._stages: list[list[Any]] = []
        self._ledgers: list[Any] = []
        self._running = Running(None, None, folder / cluster.TOKEN_FILE)
        self._cluster_up = False

    async def open(self) -> None:
        """Starts the cluster, then each node's actors, stage by stage."""
        cluster.prepare(self._ray, self._folder, os.environ)
        from lloom.actors.roles import plan  # imports Ray, which reads its environment then

        plans = [plan(node.settings, node.identity.address, *await self._sockets(node)) for node in self._nodes]
        where = self._ray.address or "a cluster of its own, on loopback"
        with self.terminal.step(f"starting Ray ({where})"):
            dashboard = await asyncio.wait_for(
                self._thread.run(lambda: cluster.start(self._ray, self._folder)), self._ray.start_seconds
            )
        self._cluster_up = True
        gateway = next((found.gateway for found in plans if found.gateway), None)
        self._running = Running(gateway, dashboard, self._folder / cluster.TOKEN_FILE)
        await self._start(plans)
        who = ", ".join(f"{node.settings.role} {checksum(node.identity.address)}" for node in self._nodes)
        self.terminal.say(f"{who} is up" if len(self._nodes) == 1 else "the whole network is up")

    async def until_done(self, stop: asyncio.Event, then: Then | None) -> int:
        """Waits for a signal, for `then`, or for an actor that gives up; the exit status."""
        waiting = asyncio.create_task(stop.wait())
        task = asyncio.create_task(then(self._running)) if then else waiting  # type: ignore[arg-type]
        work = [actor.work for stage in [*self._stages, self._ledgers] for actor in stage]
        try:
            await asyncio.wait([waiting, task, *work], return_when=asyncio.FIRST_COMPLETED)
            for done in (done for done in work if done.done()):
                await done
                raise LloomError(f"{done.get_name()} ended by itself")
            if waiting.done():
                return INTERRUPTED if then and not task.done() else 0
            return int(await task)
        finally:
            for pending in (waiting, task):
                pending.cancel()
            await asyncio.gather(waiting, task, return_exceptions=True)

    async def close(self) -> None:
        """Goodbyes first, then the workers drain, then the ledgers, at last the cluster."""
        drain = max(max(n.settings.bridge.drain_seconds, n.settings.gateway.drain_seconds) for n in self._nodes)
        if any(self._stages):
            self.terminal.say("stopping: saying goodbye and letting open requests end")
        for stage in [*self._stages, self._ledgers]:
            await asyncio.gather(*(actor.stop(drain + STOP_SECONDS) for actor in stage))
        for agent in self._agents:
            agent.close()
        if self._cluster_up:
            await self._thread.run(cluster.stop)

    async def _sockets(self, node: Node) -> tuple[Path, Path]:
        """Where the node's actors get its key, and where they log to."""
        key_socket = self._folder / f"{node.identity.address.hex()}.key"
        self._agents.append(await keyagent.serve(key_socket, node.identity))
        return key_socket, self._folder / "log"

    async def _start(self, plans: Sequence[Any]) -> None:
        """Every node's actors at once, each node's stage by stage; the first node before the others, who may need it."""
        first, *others = plans
        await self._start_node(first)
        await asyncio.gather(*(self._start_node(other) for other in others))

    async def _start_node(self, plan: Any) -> None:
        from lloom.actors.supervisor import Supervised

        def spawn(parts: Sequence[Any]) -> list[Any]:
            return [Supervised(part, self.terminal.say) for part in parts]

        ledgers = spawn(plan.ledger)
        self._ledgers += ledgers
        stages = [spawn(parts) for parts in plan.stages]
        for number, stage in enumerate(stages):
            while len(self._stages) <= number:
                self._stages.append([])
            self._stages[number] += stage
        for actor in (actor for stage in [ledgers, *stages] for actor in stage):
            self.terminal.say(f"{actor.part.place.name} {await actor.ready()}")


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; Stopped, and `work` cancelled, if `stop` is set first."""
    task, waiting = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Stopped("asked to stop")
        return task.result()
    finally:
        for pending in (task, waiting):
            pending.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)
