"""Keeps one actor of a node at work: spawns it, runs its `serve()`, starts it again when that fails. It knows no role."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lloom.actors.base import Actor
from lloom.actors.place import Place
from lloom.core.errors import ConfigError, LloomError

STABLE_SECONDS: Final = 60.0
"""An actor that worked this long before it failed starts counting its failures anew."""
BACKOFF_SECONDS: Final = 0.5
LONGEST_BACKOFF_SECONDS: Final = 15.0


class ActorFailed(LloomError):
    """Raised when an actor failed more often in a row than `ray.restarts` allows: the node gives up."""


@dataclass(frozen=True, slots=True)
class Part:
    """One actor of a node, before it is spawned. `arguments` follow the place in the constructor."""

    place: Place
    kind: type[Actor]
    arguments: tuple[Any, ...] = ()
    num_cpus: float = 0
    num_gpus: float = 0
    stops: int = 0
    """Actors stop in the order of this number; equal ones together."""
    at_home: bool = True
    """Whether it has to run on the driver's machine, because it needs the node's key or its folder."""


class Supervised:
    """A spawned actor. `tell` hears of every failure that is survived."""

    def __init__(self, part: Part, tell: Callable[[str], None]) -> None:
        self.part = part
        self._tell = tell
        self._handle: Any = self._spawn()
        self.work = asyncio.create_task(self._keep(), name=part.place.title)

    async def ready(self) -> str:
        """The actor's own summary once it does its work; raises what made it give up."""
        asked = asyncio.ensure_future(self._handle.ready.options(max_task_retries=-1).remote())
        await asyncio.wait((asked, self.work), return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            return str(asked.result())
        asked.cancel()
        await self.work
        raise ActorFailed(f"{self.part.place.title} stopped before it was ready")

    async def stop(self, seconds: float) -> None:
        """Asks the actor to end and waits for it, at most `seconds`."""
        if not self.work.done():
            with contextlib.suppress(ray.exceptions.RayError, TimeoutError):
                async with asyncio.timeout(seconds):
                    # With retries one that is just being restarted hears of it, too.
                    await self._handle.stop.options(max_task_retries=-1).remote()
            await asyncio.wait((self.work,), timeout=seconds)
        self.work.cancel()
        await asyncio.gather(self.work, return_exceptions=True)

    def _spawn(self) -> Any:
        part = self.part
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # Actors that only wait reserve no processor; ray.remote is called here alone: the logic stays plain classes.
        return (
            ray.remote(part.kind)
            .options(
                name=part.place.name,
                namespace=part.place.namespace,
                num_cpus=part.num_cpus,
                num_gpus=part.num_gpus,
                max_restarts=-1,
                scheduling_strategy=here if part.at_home else "DEFAULT",
            )
            .remote(part.place, *part.arguments)
        )

    async def _keep(self) -> None:
        """Runs `serve()` until `stop()` was asked; ConfigError and ActorFailed end it."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                # With retries Ray runs it again in the fresh process after a kill.
                await self._handle.serve.options(max_task_retries=-1).remote()
                return
            except ray.exceptions.RayError as error:
                failures = failures + 1 if time.monotonic() - began < STABLE_SECONDS else 1
                self._judge(error, failures)
            await asyncio.sleep(min(LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2**failures))

    def _judge(self, error: ray.exceptions.RayError, failures: int) -> None:
        """Raises if nothing is won by another try; else says what happened."""
        cause: BaseException = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
        while isinstance(cause, BaseExceptionGroup):  # of a TaskGroup: its first error ended the others
            cause = cause.exceptions[0]
        if isinstance(cause, ConfigError):
            raise cause
        name = self.part.place.title
        reason = f"{type(cause).__name__}: {cause}".strip().splitlines()[0]
        if failures > self.part.place.settings.ray.restarts:
            raise ActorFailed(f"{name} failed {failures} times in a row: {reason}") from error
        self._tell(f"{name} failed ({reason}); starting it again")
        if isinstance(error, ray.exceptions.RayActorError) and not isinstance(
            error, ray.exceptions.ActorUnavailableError
        ):
            self._handle = self._spawn()
