"""Open bridge connections, one for each worker, kept warm. It never decides whom to ask."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Final

from loguru import logger

from lloom.adapters.bridge import Connection
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.offer import Endpoint

Dial = Callable[[Endpoint, NodeId], Awaitable[Connection]]

_Worker = tuple[NodeId, Endpoint]

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 3.0
"""After nobody was reached, before the next dial: callers fail fast meanwhile. Short, for workers come back in seconds."""
MAX_FAILURES: Final = 4096
STAGGER_SECONDS: Final = 0.25
"""RFC 8305, section 5: the delay between two attempts."""


@dataclass(frozen=True, slots=True)
class _Failure:
    error: RetryElsewhere
    pause: float
    until: float


class Pool:
    """Dials each worker once, for however many callers, and at most `limit` of them."""

    def __init__(self, dial: Dial, limit: int) -> None:
        self._dial = dial
        self._limit = limit
        self._warm: OrderedDict[_Worker, Connection] = OrderedDict()
        self._open: set[Connection] = set()
        self._dials: dict[_Worker, asyncio.Task[Connection]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: OrderedDict[_Worker, _Failure] = OrderedDict()

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._open)

    async def connection(self, executor: NodeId, endpoint: Endpoint) -> Connection:
        """An open connection to that worker. RetryElsewhere or PeerFault as `bridge.dial`, or when all places are taken.

        For a moment after nobody was reached, longer after each further time, the same error comes at once.
        """
        worker = executor, endpoint
        warm = self._open_to(worker)
        if warm is not None:
            return warm
        dial = self._dials.get(worker)
        if dial is None:
            self._check(worker)
            dial = self._start(worker)
        return await asyncio.shield(dial)

    async def any(self, executor: NodeId, endpoints: Sequence[Endpoint]) -> Connection:
        """A connection to whichever endpoint of `executor` answers first; each next one is tried a little later, or at once when
        one has failed (Happy Eyeballs, RFC 8305). Raises what the last one failed with.
        """
        racing: set[asyncio.Task[Connection]] = set()
        error = RetryElsewhere(f"{checksum(executor)} has no address", code="unreachable")
        left = list(endpoints)
        try:
            while left or racing:
                if left:
                    racing.add(asyncio.create_task(self.connection(executor, left.pop(0))))
                pause = STAGGER_SECONDS if left else None
                done, racing = await asyncio.wait(racing, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if not isinstance(failed := task.exception(), RetryElsewhere):
                        return task.result()
                    error = failed
        finally:
            for task in racing:  # a dial that goes on leaves a warm connection
                task.cancel()
        raise error

    def warm(self, workers: Iterable[_Worker]) -> None:
        """Dials those of `workers` to whom nothing is open, behind whatever goes on; only while half of the places are free."""
        for worker in workers:
            if 2 * (len(self._open) + len(self._dials)) >= self._limit:
                return
            if self._open_to(worker) is None and worker not in self._dials and worker not in self._failed:
                self._start(worker)

    def _open_to(self, worker: _Worker) -> Connection | None:
        warm = self._warm.get(worker)
        if warm is None or warm.session.closed or warm.session.leaving:
            return None
        self._warm.move_to_end(worker)
        return warm

    def _check(self, worker: _Worker) -> None:
        """Raises why `worker` could not be dialled, if that was a moment ago."""
        failure = self._failed.get(worker)
        if failure is not None and asyncio.get_running_loop().time() < failure.until:
            raise copy(failure.error)

    def _note(self, worker: _Worker, error: RetryElsewhere) -> None:
        """The dial failed: the pause doubles."""
        before = self._failed.pop(worker, None)
        pause = min(2 * before.pause, LONGEST_PAUSE) if before is not None else FIRST_PAUSE
        self._failed[worker] = _Failure(error, pause, asyncio.get_running_loop().time() + pause)
        if len(self._failed) > MAX_FAILURES:
            self._failed.popitem(last=False)

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
            if isinstance(error, RetryElsewhere) and error.code == "unreachable":
                self._note(worker, error)
            return
        self._failed.pop(worker, None)
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
