"""What this node says of itself in the DHT, kept alive until it is taken back. It never speaks for others and keeps no key."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterable, Sequence
from typing import Final

from loguru import logger

from lloom.adapters.dht.storage import Clock
from lloom.adapters.dht.swarm import Swarm
from lloom.core import records
from lloom.core.errors import ConfigError
from lloom.core.identity import Identity, keccak
from lloom.core.offer import Endpoint
from lloom.core.records import ALL, Key, Kind, OfferBody, Record, Stamp
from lloom.core.settings import DhtSettings

# Searches at once when many models are announced: each alone keeps a dozen queries in flight.
PARALLEL: Final = 4


class Announcer:
    """Publishes one OFFER record and an INDEX record per model, and refreshes them.

    `clock` gives Unix seconds. ConfigError if records shall live longer than anybody would hold them.
    """

    def __init__(self, swarm: Swarm, identity: Identity, network: str, settings: DhtSettings, clock: Clock) -> None:
        if settings.record_ttl_seconds > records.MAX_LIFETIME:
            raise ConfigError(
                f"dht.record_ttl_seconds: at most {records.MAX_LIFETIME}, nobody holds a record for longer"
            )
        self._swarm = swarm
        self._identity = identity
        self._network = network
        self._settings = settings
        self._clock = clock
        self._said: dict[Key, Record] = {}
        self._seq = 0
        # One change at a time, so that what was said last is what stands.
        self._turn = asyncio.Lock()
        # When to refresh (loop time, None: nothing to refresh); `_moved` wakes `run` when that changes.
        self._due: float | None = None
        self._moved = asyncio.Event()

    async def announce(self, models: Sequence[str], endpoints: Sequence[Endpoint], fingerprint: bytes) -> int:
        """Say this instead of what was said before; the smallest number of other nodes that hold one of the records."""
        async with self._turn:
            stamp = Stamp(self._identity.address, self._next_seq(), self._expiry())
            fresh = [records.index_record(self._network, model, stamp) for model in {*models, ALL}]
            fresh.append(records.offer_record(self._network, OfferBody(tuple(endpoints), fingerprint), stamp))
            before, self._said = self._said, {Key(record.key): record for record in fresh}
            stored = await self._publish(fresh)
            self._schedule(stored)
            await self._take_back(record for key, record in before.items() if key not in self._said)
            return stored

    async def withdraw(self) -> None:
        """Take back everything. Holders that do not hear it forget within the records' lifetime."""
        async with self._turn:
            before, self._said = self._said, {}
            self._due = None
            await self._take_back(before.values())

    def refresh_soon(self) -> None:
        """The network has changed: say everything again without waiting for the time to come."""
        if self._said:
            self._due = asyncio.get_running_loop().time()
            self._moved.set()

    async def run(self) -> None:
        """Refresh for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._due):
                    await self._moved.wait()
            self._moved.clear()
            if self._due is not None and self._due <= asyncio.get_running_loop().time():
                await self._refresh()

    async def _refresh(self) -> None:
        async with self._turn:
            expiry = self._expiry()
            # Whether shards are still needed shows again; one that is not said again expires by itself.
            self._said = {
                key: records.renewed(record, expiry) for key, record in self._said.items() if _is_first(record)
            }
            try:
                stored = await self._publish(list(self._said.values()))
            except Exception:  # noqa: BLE001 - the boundary of this task: one failed refresh must not end all
                logger.exception("Refreshing what this node announced failed; it will be tried again")
                stored = 0
            self._schedule(stored)

    async def _publish(self, fresh: Iterable[Record]) -> int:
        """Sign and store all; the smallest number of holders among them, 0 if there is nothing."""
        places = asyncio.Semaphore(PARALLEL)

        async def one(record: Record) -> int:
            async with places:
                stored = await self._swarm.publish(records.sign(record, self._identity, self._network))
                if record.kind is Kind.INDEX and stored.crowd >= self._settings.records_per_key // 2:
                    await self._spread(record)
                return stored.holders

        return min(await asyncio.gather(*map(one, fresh)), default=0)

    async def _spread(self, record: Record) -> None:
        """The key of `record` is half full: say the same under one of its shards, always the same one."""
        if record.goodbye or (body := records.index_body(record)).shard:
            return
        shard = 1 + int.from_bytes(keccak(self._identity.address)[:4], "big") % self._settings.shards
        stamp = Stamp(self._identity.address, record.seq, record.expiry)
        also = records.index_record(self._network, body.model, stamp, shard)
        self._said[Key(also.key)] = also
        await self._swarm.publish(records.sign(also, self._identity, self._network))

    async def _take_back(self, said: Iterable[Record]) -> None:
        seq, expiry = self._next_seq(), self._expiry()
        await self._publish([records.goodbye(record, seq, expiry) for record in said])

    def _schedule(self, stored: int) -> None:
        """The next refresh: in time, or soon if nobody heard us."""
        if self._said:
            usual = self._settings.record_ttl_seconds / 3
            pause = usual if stored else min(usual, self._settings.bootstrap_seconds)
            # Nodes started together must not stay in step.
            self._due = asyncio.get_running_loop().time() + pause * random.uniform(0.8, 1.2)  # noqa: S311
            self._moved.set()

    def _expiry(self) -> int:
        return int(self._clock() + self._settings.record_ttl_seconds)

    def _next_seq(self) -> int:
        """Milliseconds of Unix time, so that it grows over restarts too; always more than the last one."""
        self._seq = max(self._seq + 1, int(self._clock() * 1000))
        return self._seq


def _is_first(record: Record) -> bool:
    """Whether `record` is said in any case, not only because a key is crowded."""
    return record.kind is not Kind.INDEX or not records.index_body(record).shard
