"""Keeps a Worker reachable through validators: as many reservations as wanted, each on a connection that the Worker dials.

It never decides whether they are wanted, nor who the validators are.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Final

from loguru import logger

from lloom.adapters.anchors.inquiry import Whereabouts
from lloom.adapters.bridge import Connection, Stream
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import ReserveCall
from lloom.core.offer import Endpoint

ANSWER_SECONDS: Final = 10.0
"""For a validator to dial and to say that it relays."""
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0
"""Between two tries with a validator that does not relay to us."""

Dial = Callable[[Endpoint, NodeId], Awaitable[Connection]]
"""To a validator, with a handler that takes what it relays."""


class Reservations:
    """Those of one Worker, `number` among its executor's. `wanted`: at so many validators at once."""

    def __init__(self, dial: Dial, number: int, wanted: int, rng: random.Random) -> None:
        self._dial = dial
        self._number = number
        self._wanted = wanted
        self._rng = rng
        self._validators: dict[NodeId, Endpoint] = {}
        self._held: dict[NodeId, Endpoint] = {}
        self._tries: dict[NodeId, asyncio.Task[None]] = {}
        self._pauses: dict[NodeId, float] = {}
        self._not_before: dict[NodeId, float] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._look = asyncio.Event()
        self.changed = asyncio.Event()
        """Set when `held` changes; whoever waits for it clears it."""

    @property
    def held(self) -> tuple[Endpoint, ...]:
        """Where we are reached through relays now."""
        return tuple(sorted(self._held.values()))

    def use(self, validators: Collection[Whereabouts]) -> None:
        """From now on at some of these; none: nowhere."""
        known = dict(validators)
        if known != self._validators:
            self._validators = known
            self._look.set()

    async def run(self) -> None:
        """Reserves, and reserves anew when one is lost, for ever; cancelled, it gives all of them up."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._look.clear()
                self._adjust(loop.time())
                pauses = [due - loop.time() for each, due in self._not_before.items() if each not in self._tries]
                try:
                    async with asyncio.timeout(max(0.0, min(pauses)) if pauses else None):
                        await self._look.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._tries.values():
                task.cancel()
            await asyncio.gather(*self._tries.values(), return_exceptions=True)
            await asyncio.gather(*self._closing)

    def _adjust(self, now: float) -> None:
        """Gives up what is not wanted any more, and begins what is missing, in an order of its own so that the load spreads."""
        for validator in [each for each in self._tries if each not in self._validators]:
            self._tries[validator].cancel()
        self._not_before = {
            each: due for each, due in self._not_before.items() if due > now and each in self._validators
        }
        free = [each for each in self._validators if each not in self._tries and each not in self._not_before]
        self._rng.shuffle(free)
        for validator in free[: max(0, self._wanted - len(self._tries))]:
            task = self._tries[validator] = asyncio.create_task(self._hold(validator, self._validators[validator]))
            task.add_done_callback(partial(self._lost, validator))

    async def _hold(self, validator: NodeId, endpoint: Endpoint) -> None:
        """Returns when the reservation is lost, or could not be had."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                connection = await self._dial(endpoint, validator)
        except (RetryElsewhere, TimeoutError) as error:
            logger.debug("{} cannot relay to us: {}", checksum(validator), error)
            return
        stream = None
        try:
            stream = await connection.open(ReserveCall(self._number))
            async with asyncio.timeout(ANSWER_SECONDS):
                await stream.receive()
            self._held[validator] = Endpoint(endpoint.host, endpoint.port, bytes(validator), self._number)
            self._pauses.pop(validator, None)
            self.changed.set()
            await _until_lost(connection, stream)
        except (RetryElsewhere, TimeoutError) as error:
            logger.debug("{} relays to us no more: {}", checksum(validator), error)
        finally:
            if self._held.pop(validator, None) is not None:
                self.changed.set()
            closing = asyncio.create_task(_give_up(connection, stream))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _lost(self, validator: NodeId, _: asyncio.Task[None]) -> None:
        del self._tries[validator]
        pause = self._pauses.get(validator, FIRST_PAUSE)
        self._pauses[validator] = min(2 * pause, LONGEST_PAUSE)
        self._not_before[validator] = asyncio.get_running_loop().time() + pause * self._rng.uniform(0.75, 1.25)
        self._look.set()


async def _until_lost(connection: Connection, reservation: Stream) -> None:
    """Returns when the validator ends the reservation, or stops; RetryElsewhere if it is lost."""
    ends = [asyncio.ensure_future(each) for each in (reservation.receive(), connection.leaving.wait())]
    try:
        done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in done:
            end.result()
    finally:
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)


async def _give_up(connection: Connection, reservation: Stream | None) -> None:
    """What is being relayed may come to its end."""
    if reservation is not None:
        reservation.cancel()
    await connection.close()
