"""A place for actors without Ray: settings, a key, and fellow actors that answer as scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from lloom.actors.place import Place
from lloom.core.identity import Identity
from lloom.core.offer import Endpoint, ModelOffer
from tests.money_support import accounting

NETWORK = "test"
TTL = 900.0
"""Seconds that a record lives in the DHT."""
CERTIFICATE_SECONDS = 3600.0
PER_CLIENT = 16
"""Requests at once from one client."""
HERE, THERE = Endpoint("127.0.0.1", 9001), Endpoint("127.0.0.1", 9002)


@dataclass
class FakePlace:
    """As much of a Place as actors need. `fellows` answers what they ask each other, or raises."""

    name: str = "actor"
    identity_: Identity = field(default_factory=Identity.generate)
    fellows: Callable[..., Any] | None = None
    logs: int = 0

    def __post_init__(self) -> None:
        self.node = self.identity_.address
        self.settings = SimpleNamespace(
            network=SimpleNamespace(name=NETWORK, relay="auto", host="127.0.0.1", advertise=None),
            dht=SimpleNamespace(record_ttl_seconds=TTL),
            bridge=SimpleNamespace(certificate_seconds=CERTIFICATE_SECONDS),
            executor=SimpleNamespace(requests_per_client=PER_CLIENT),
            accounting=accounting(),
            chain={},
        )

    def identity(self) -> Identity:
        return self.identity_

    def open_log(self) -> None:
        self.logs += 1

    def restarted(self) -> bool:
        return False

    async def ask(self, fellow: str, method: str, *arguments: Any, seconds: float) -> Any:
        assert self.fellows is not None
        await asyncio.sleep(0)
        return self.fellows(fellow, method, *arguments)

    @property
    def place(self) -> Place:
        return cast(Place, self)


@dataclass
class FakeTime:
    """A wall clock that can be set, and a monotonic one: in a module's place of `time`."""

    wall: float = 1_800_000_000.0
    steady: float = 1000.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def pass_(self, seconds: float) -> None:
        """Both go on; `wall` alone is a machine that sleeps, or a clock that is set."""
        self.wall += seconds
        self.steady += seconds


def model(name: str) -> ModelOffer:
    return ModelOffer(id=name, context=2048, max_output=512, parallel=2, encoding="o200k_base", backend="mock")


async def until(condition: Callable[[], bool]) -> None:
    """Lets other tasks run until `condition` holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition is no event of asyncio's
            await asyncio.sleep(0)


async def turns(times: int = 50) -> None:
    """Lets other tasks run: what does not happen now does not happen."""
    for _ in range(times):
        await asyncio.sleep(0)
