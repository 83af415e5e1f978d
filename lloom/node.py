"""A role is a set of actors: start the cluster, spawn, connect, supervise, stop. What an actor does stands in actors/."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from lloom.actors import cluster
from lloom.actors.place import Office
from lloom.adapters.chain import anvil
from lloom.adapters.machine import keyagent, relay
from lloom.adapters.machine.daemon import DaemonThread
from lloom.adapters.machine.guard import STOP
from lloom.adapters.machine.home import only_one
from lloom.adapters.machine.terminal import Terminal
from lloom.core.errors import ConfigError, LloomError
from lloom.core.identity import Identity, checksum
from lloom.core.settings import Chain, Settings

if TYPE_CHECKING:
    from lloom.actors.supervisor import Part, Supervised

INTERRUPTED: Final = 130
STOP_SECONDS: Final = 5.0
"""What stopping an actor may take beyond the drain times of the settings."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Node:
    """One node to run: its settings, role included, and who it is."""

    settings: Settings
    identity: Identity
    provider_keys: Mapping[str, str]
    """API keys of its backends and URLs of its chains' servers, by the name of the variable they come from."""
    label: str = ""
    """Tells nodes of one process apart on the terminal."""

    def on(self, chains: Mapping[str, Chain]) -> Node:
        """The same node, where these are the chains."""
        return replace(self, settings=msgspec.structs.replace(self.settings, chain=dict(chains)))


@dataclass(frozen=True, slots=True)
class Running:
    """What runs now, for whoever uses it."""

    gateway: str | None
    """`http://host:port` of the client node, if there is one."""
    dashboard: str | None
    """URL of Ray's dashboard, which asks for the token in `token_file`."""
    token_file: Path
    chains: Mapping[str, Chain]
    """With their contracts, and servers that answer."""


class Stopped(LloomError):
    """Raised when a signal asks the node to stop while it is still starting."""


Then = Callable[[Running], Awaitable[int | None]]
"""What to do with the running nodes before they stop again; its result is the exit status. None: stay until a signal comes."""

First = Callable[[Mapping[str, Chain]], Coroutine[Any, Any, None]]
"""What to do on the chains before the nodes start."""


def run(nodes: Sequence[Node], folder: Path, then: Then | None = None, first: First | None = None) -> int:
    """Runs `nodes` in one Ray cluster until the guard says STOP or `then` has ended; the exit status.

    `folder` is private to this run and removed by the caller. LloomError says in one sentence why it could not go on.
    """
    return asyncio.run(_run(nodes, folder, then, first))


async def _run(nodes: Sequence[Node], folder: Path, then: Then | None, first: First | None) -> int:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(STOP, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        for node in nodes:
            stack.enter_context(only_one(node.settings))
        await stack.enter_async_context(relay.listening(folder / "log"))
        chains = await stack.enter_async_context(anvil.provided(nodes[0].settings))
        house = House([node.on(chains.chain) for node in nodes], folder, Terminal())
        try:
            if first is not None:
                await _unless(stop, first(chains.chain))
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
        self._actors: list[Supervised] = []
        self._running = Running(None, None, folder / cluster.TOKEN_FILE, nodes[0].settings.chain)
        self._cluster_up = False

    async def open(self) -> None:
        """Starts the cluster, then the actors of all nodes: those of the first before the others, who may need it."""
        cluster.prepare(self._ray, self._folder, os.environ)
        from lloom.actors.roles import plan  # Ray reads its environment when it is imported

        plans = [plan(await self._office(node), node.label) for node in self._nodes]
        where = self._ray.address or "a cluster of its own, on loopback"
        with self.terminal.step(f"starting Ray ({where})"):
            dashboard = await self._start_cluster()
        gateway = next((found.gateway for found in plans if found.gateway), None)
        self._running = replace(self._running, gateway=gateway, dashboard=dashboard)
        first, *others = plans
        await self._start(first.parts)
        if others:
            await self._start([part for other in others for part in other.parts])
        roles = ", ".join(f"{node.settings.role} {checksum(node.identity.address)}" for node in self._nodes)
        self.terminal.say(f"{roles} is up" if len(self._nodes) == 1 else "the whole network is up")

    async def until_done(self, stop: asyncio.Event, then: Then | None) -> int:
        """Waits for a signal, for `then`, or for an actor that gives up; the exit status."""
        signal = asyncio.create_task(stop.wait())
        task = asyncio.ensure_future(then(self._running)) if then else None
        try:
            if task is not None:
                await self._first(signal, task)
                if not task.done():
                    return INTERRUPTED
                if (status := task.result()) is not None:
                    return status
            await self._first(signal)
            return 0
        finally:
            await _give_up(signal, *([task] if task else []))

    async def close(self) -> None:
        """Goodbyes first, then the workers drain, then the ledgers, at last the cluster."""
        drain = max(max(n.settings.bridge.drain_seconds, n.settings.gateway.drain_seconds) for n in self._nodes)
        if self._actors:
            self.terminal.say("stopping: saying goodbye and letting open requests end")
        try:
            for _, stage in groupby(sorted(self._actors, key=_stage), key=_stage):
                await asyncio.gather(*(actor.stop(drain + STOP_SECONDS) for actor in stage))
        finally:
            for agent in self._agents:
                agent.close()
            if self._cluster_up:
                await self._thread.run(cluster.stop)

    async def _office(self, node: Node) -> Office:
        """What the node's actors have in common; from now on they can have its key."""
        name = node.identity.address.hex()
        key, providers = self._folder / f"{name}.key", self._folder / f"{name}.providers"
        self._agents.append(await keyagent.serve(key, node.identity.secret))
        self._agents.append(await keyagent.serve(providers, msgspec.json.encode(node.provider_keys)))
        return Office(node.settings, node.identity.address, str(key), str(providers), str(self._folder / "log"))

    async def _start_cluster(self) -> str | None:
        """The dashboard's URL, if there is one."""
        seconds = self._ray.start_seconds
        try:
            async with asyncio.timeout(seconds):
                found = await self._thread.run(lambda: cluster.start(self._ray, self._folder))
        except TimeoutError:
            raise ConfigError(f"Ray did not start within {seconds:g} s (ray.start_seconds)") from None
        self._cluster_up = True
        return found

    async def _start(self, parts: Sequence[Part]) -> None:
        """Spawns all of `parts` at once and waits until each does its work; raises what keeps the first one from it."""
        from lloom.actors.supervisor import Supervised

        self.terminal.say(f"starting {', '.join(part.place.title for part in parts)} ...")
        actors = [Supervised(part, self.terminal.say) for part in parts]
        self._actors += actors
        try:
            async with asyncio.TaskGroup() as group:
                for actor in actors:
                    group.create_task(self._introduce(actor))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _introduce(self, actor: Supervised) -> None:
        self.terminal.say(f"{actor.part.place.title} {await actor.ready()}")

    async def _first(self, *tasks: asyncio.Future[Any]) -> None:
        """Waits for one of `tasks`; raises what made an actor give up, should that come first."""
        work = [actor.work for actor in self._actors]
        await asyncio.wait([*tasks, *work], return_when=asyncio.FIRST_COMPLETED)
        for ended in (each for each in work if each.done()):
            await ended
            raise LloomError(f"{ended.get_name()} ended by itself")


def _stage(actor: Supervised) -> int:
    return actor.part.stops


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; Stopped, and `work` cancelled, if `stop` is set first."""
    task, waiting = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Stopped("asked to stop")
        return task.result()
    finally:
        await _give_up(task, waiting)


async def _give_up(*tasks: asyncio.Future[Any]) -> None:
    """Cancels what of `tasks` is not done, and waits for its end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
