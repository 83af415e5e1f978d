"""In whose name probes are made: identities like those of clients, and they change. It asks nothing itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from lloom.adapters.routing.attempt import Keeping
from lloom.adapters.routing.pool import Pool
from lloom.adapters.routing.purses import NONE, Purses
from lloom.core import visitors
from lloom.core.identity import Identity, NodeId
from lloom.core.order import Client
from lloom.core.settings import ValidatorSettings


@dataclass(frozen=True, slots=True)
class Shopper:
    """One client: who it is, its connections, the receipts it awaits, and its money."""

    client: Client
    pool: Pool
    keeping: Keeping
    purses: Purses = NONE


@dataclass(slots=True)
class _Employed:
    shopper: Shopper
    users: int = 0


@dataclass(slots=True)
class Shoppers:
    """`owner`: the validator; `make` builds a shopper with an identity; `payer`: who asks what costs money, None: nobody does."""

    owner: Identity
    make: Callable[[Identity], Shopper]
    settings: ValidatorSettings
    payer: Shopper | None = None
    _employed: dict[tuple[int, int], _Employed] = field(default_factory=dict, init=False)
    """By epoch and number."""

    @asynccontextmanager
    async def visiting(self, executor: NodeId, now: float) -> AsyncIterator[Shopper]:
        """Who visits `executor` now (Unix seconds): the same one until an epoch ends, another one than most others see."""
        epoch = int(now // self.settings.probe_key_seconds)
        await self._dismiss(epoch)
        key = epoch, visitors.number(self.owner, executor, self.settings.probe_keys)
        employed = self._employed.get(key)
        if employed is None:
            employed = self._employed[key] = _Employed(self.make(visitors.visitor(self.owner, *key)))
        employed.users += 1
        try:
            yield employed.shopper
        finally:
            employed.users -= 1

    async def close(self) -> None:
        """Closes all connections. Nobody may be visiting any more."""
        gone, self._employed = list(self._employed.values()), {}
        for employed in gone:
            await employed.shopper.pool.close()

    @property
    def connections(self) -> int:
        """Connections that are open."""
        payer = 0 if self.payer is None else self.payer.pool.connections
        return payer + sum(employed.shopper.pool.connections for employed in self._employed.values())

    async def _dismiss(self, epoch: int) -> None:
        """Lets those go whose epoch is over, once their last visit is."""
        over = [key for key, employed in self._employed.items() if key[0] != epoch and not employed.users]
        for employed in [self._employed.pop(key) for key in over]:
            await employed.shopper.pool.close()
