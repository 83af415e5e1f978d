"""Open bridge connections, one for each worker, kept warm. It never decides whom to ask."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from loguru import logger

from lloom.adapters.bridge import Connection
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.offer import Endpoint

Dial = Callable[[Endpoint, NodeId], Awaitable[Connection]]

_Worker = tuple[NodeId, Endpoint]


class Pool:
    """Dials each worker once, for however many callers, and at most `limit` of them."""

    def __init__(self, dial: Dial, limit: int) -> None:
        self._dial = dial
        self._limit = limit
        self._warm: OrderedDict[_Worker, Connection] = OrderedDict()
        self._open: set[Connection] = set()
        self._dials: dict[_Worker, asyncio.Task[Connection]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._open)

    async def connection(self, executor: NodeId, endpoint: Endpoint) -> Connection:
        """An open connection to that worker. RetryElsewhere or PeerFault as `bridge.dial`, or when all places are taken."""
        worker = executor, endpoint
        warm = self._warm.get(worker)
        if warm is not None and not (warm.session.closed or warm.session.leaving):
            self._warm.move_to_end(worker)
            return warm
        dial = self._dials.get(worker) or self._start(worker)
        return await asyncio.shield(dial)

    async def close(self) -> None:
        """Gives up the dials under way and closes all connections, each after its open streams have drained."""
        for dial in list(self._dials.values()):
            dial.cancel()
        async with asyncio.TaskGroup() as group:
            for connection in tuple(self._open):
                group.create_task(connection.close())
        await asyncio.gather(*self._tasks)

    def _start(self, worker: _Worker) -> asyncio.Task[Connection]:
        self._make_room()
        executor, endpoint = worker
        dial = asyncio.ensure_future(self._dial(endpoint, executor))
        self._dials[worker] = dial
        dial.add_done_callback(lambda done: self._dialled(worker, done))
        return dial

    def _dialled(self, worker: _Worker, dial: asyncio.Task[Connection]) -> None:
        del self._dials[worker]
        if dial.cancelled():
            return
        if (error := dial.exception()) is not None:  # looked at here, for the callers may all have gone
            logger.debug("cannot reach {} at {}: {}", checksum(worker[0]), worker[1], error)
            return
        connection = self._warm[worker] = dial.result()
        self._open.add(connection)
        self._own(self._drop_when_closed(worker, connection))

    async def _drop_when_closed(self, worker: _Worker, connection: Connection) -> None:
        await connection.closed.wait()
        self._open.discard(connection)
        if self._warm.get(worker) is connection:
            del self._warm[worker]

    def _make_room(self) -> None:
        """Closes the connection unused for longest if there are too many; RetryElsewhere if all are in use."""
        if len(self._open) + len(self._dials) < self._limit:
            return
        idle = next((worker for worker, connection in self._warm.items() if not connection.streams), None)
        if idle is None:
            raise RetryElsewhere(
                f"All {self._limit} connections (bridge.connections) are in use.", status=503, code="connections"
            )
        self._own(self._warm.pop(idle).close())

    def _own(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
