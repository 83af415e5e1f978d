"""Where a validator connects clients to Workers that cannot be dialled. It sees who, when and how much; never what.

The bytes are TLS between the two. A Worker's reservation is a stream that it keeps open; every relayed connection is a stream of
the client spliced to one of the same connection as the reservation. What one side does not read is not read from the other.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final

from lloom.adapters.bridge import Stream
from lloom.adapters.validator.sources import network
from lloom.core.buckets import Buckets
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import Call, Refusal, RelayCall, RelayedCall, ReserveCall
from lloom.core.settings import RelaySettings
from lloom.core.throttle import Throttle

SILENCE_SECONDS: Final = 60.0
"""A bridge within says something every `bridge.ping_seconds`: one that is silent for so long is dead, or was none."""
SUBNET_SHARE: Final = 4
"""No one network has more than a quarter of the places: identities cost nothing, addresses do."""
BEGUN_PER_SECOND: Final = 16
"""Relayed connections that one network begins, for the Worker has to shake hands each time; as many again in a burst."""
BEGUN: Final = 256
"""The same for everybody."""
REPLACED: Final = Refusal(503, "replaced", "the Worker has reserved anew")

Place = tuple[NodeId, int]
"""A Worker: its executor and its number."""


class Switchboard:
    """The relay of one validator: `reserve` and `relay` answer the calls of its bridge. `now`: a monotonic clock."""

    def __init__(self, settings: RelaySettings, now: Callable[[], float]) -> None:
        self._settings = settings
        self._now = now
        self._reserved: dict[Place, Stream] = {}
        self._taken: Counter[Hashable] = Counter()
        self._throttle = Throttle(settings.bytes_per_second)
        self._begun = Buckets(BEGUN_PER_SECOND, BEGUN)

    @property
    def reserved(self) -> int:
        """Workers that are relayed to now."""
        return len(self._reserved)

    @property
    def streams(self) -> int:
        """Relayed connections now."""
        return self._taken["streams"]

    async def reserve(self, stream: Stream) -> None:
        """Relays to the caller until the stream ends. RetryElsewhere if there is no place, or when it reserves anew."""
        call: Call = stream.call
        assert isinstance(call, ReserveCall)
        place = stream.connection.peer, call.worker
        source = f"reserved {network(stream)}"
        before = self._reserved.pop(place, None)
        if before is not None:
            before.reset(REPLACED)
        if len(self._reserved) >= self._settings.executors:
            raise RetryElsewhere("This validator relays to no more Workers.", status=503, code="full")
        with self._places((source, _share(self._settings.executors))):
            self._reserved[place] = stream
            try:
                await stream.send(b"\x01")
                if await stream.receive() is not None:
                    raise PeerFault("data on a reservation", code="violation")
                await stream.finish()
            finally:
                if self._reserved.get(place) is stream:
                    del self._reserved[place]

    async def relay(self, stream: Stream) -> None:
        """Passes bytes both ways until either side ends. RetryElsewhere if that Worker is not here, or there is no place."""
        call: Call = stream.call
        assert isinstance(call, RelayCall)
        executor, client = NodeId(call.executor), stream.connection.peer
        reservation = self._reserved.get((executor, call.worker))
        if reservation is None:
            raise RetryElsewhere(f"{checksum(executor)} is not reached through here.", status=503, code="not_relayed")
        each, every = self._settings.streams_per_peer, self._settings.streams
        source, worker = network(stream), f"worker {executor.hex()} {call.worker}"
        with self._places(
            ("streams", every),
            (f"client {client.hex()}", each),
            (f"from {source}", _share(every)),
            (worker, each),
            (f"{worker} from {source}", _share(each)),
        ):
            if not self._begun.take(source, self._now()):
                raise _busy()
            onward = await reservation.connection.open(RelayedCall())
            await self._splice(stream, onward, (client, executor))

    async def _splice(self, client: Stream, worker: Stream, peers: tuple[NodeId, NodeId]) -> None:
        """The Worker's end is the end; the client's only says that it has no more to say."""
        there = asyncio.create_task(self._pass_on(client, worker, peers))
        try:
            await self._pass_on(worker, client, peers)
        finally:
            there.cancel()
            await asyncio.gather(there, return_exceptions=True)
            worker.cancel()

    async def _pass_on(self, source: Stream, sink: Stream, peers: tuple[NodeId, NodeId]) -> None:
        loop = asyncio.get_running_loop()
        try:
            while (data := await source.receive(loop.time() + SILENCE_SECONDS)) is not None:
                wait = max([self._throttle.take(peer, len(data), self._now()) for peer in peers])
                if wait:
                    await asyncio.sleep(wait)
                await sink.send(data)
        except TimeoutError:
            raise RetryElsewhere("The relayed connection is dead.", status=504, code="silent") from None
        await sink.finish()

    @contextmanager
    def _places(self, *wanted: tuple[Hashable, int]) -> Iterator[None]:
        """Takes one place of each kind, each with its limit; RetryElsewhere if one is full."""
        if any(self._taken[kind] >= limit for kind, limit in wanted):
            raise _busy()
        kinds = [kind for kind, _ in wanted]
        self._taken.update(kinds)
        try:
            yield
        finally:
            self._taken.subtract(kinds)
            for kind in kinds:
                if not self._taken[kind]:
                    del self._taken[kind]


def _busy() -> RetryElsewhere:
    return RetryElsewhere("Too many connections at once for this relay.", status=503, code="busy", retry_after=1)


def _share(places: int) -> int:
    return max(1, places // SUBNET_SHARE)
