"""Orders of a Worker: each is run once, and its client may come back for the answer. It neither checks nor bills any.

Rules
 1. The same order (`request_id` of its client, and all else that was signed) never runs twice once something was said or billed.
 2. Where the connection breaks amid an answer, the work pauses and waits `replay_seconds` for its client. Then it ends as before.
 3. An answer that came to its end is kept as long, in memory only, and said again with the same receipt.
 4. Only whoever signed the order can ask for it again: the counter has checked that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from loguru import logger

from lloom.adapters.bridge import Connection, Stream
from lloom.adapters.serving.outlet import Outlet, Whole, say
from lloom.core.billing.receipt import Draft
from lloom.core.billing.request import CheckedRequest
from lloom.core.copies import Copies
from lloom.core.errors import CallerFault, RetryElsewhere
from lloom.core.once import Once
from lloom.core.settings import ExecutorSettings
from lloom.core.settings.base import LONGEST_SECONDS
from lloom.core.vouch import MAX_SKEW

MAX_ORDERS: Final = 600_000
"""Orders whose deadline is not over: 1,000 a second for ten minutes, as many as a Worker answers. That takes 190 MB."""
FARTHEST: Final = LONGEST_SECONDS + MAX_SKEW
"""Seconds to a deadline: orders without an end would fill the memory of orders for good."""
REPEATS: Final = 8
"""How often one order may be asked for again: its answer costs us traffic each time."""
TIDYINGS: Final = 8
"""How often kept answers are looked through in the time that each is kept: nobody gets one that is over, but its bytes stay."""

Bill = Callable[[Connection, Draft], None]
Work = Callable[[Outlet], Coroutine[Any, Any, None]]


class Running:
    """An order that is being served. `away`: what ends it if its client does not come back; `due`: if it takes too long."""

    __slots__ = ("again", "away", "due", "ended", "late", "moves", "name", "outlet", "over", "stopped", "task")

    def __init__(self, name: bytes, outlet: Outlet, again: Bill, over: Callable[[], None]) -> None:
        self.name = name
        self.outlet = outlet
        self.again = again
        self.over = over
        self.stopped = asyncio.Event()
        """Set once the work has."""
        self.away: asyncio.TimerHandle | None = None
        self.ended = self.late = False
        self.moves = 0
        self.due: asyncio.TimerHandle
        self.task: asyncio.Task[None]

    def end(self) -> None:
        """Stops the work. Once: what it does then, counting and billing, is not to be interrupted."""
        if not self.ended:
            self.ended = True
            self.task.cancel()

    def expire(self) -> None:
        """Its time is over."""
        self.late = not self.ended
        self.end()


class Orders:
    """Made within a running event loop; `close` it at the end."""

    def __init__(self, settings: ExecutorSettings) -> None:
        self._loop = asyncio.get_running_loop()
        self._once = Once(MAX_ORDERS)
        self._copies: Copies[Whole] | None = None
        if settings.replay_bytes:
            self._copies = Copies(settings.replay_bytes, settings.replay_seconds)
        self._running: dict[bytes, Running] = {}
        self._tidying: asyncio.TimerHandle | None = None

    def known(self, checked: CheckedRequest) -> bool:
        """Whether this very order was made before, and can be taken up again. RetryElsewhere (409) if it cannot:
        `reused` (its id stands for another order), `running` (its answer goes to another connection), `replayed` (it is gone).
        """
        name = _name(checked)
        used_for, running = self._once.used(name, time.time()), self._running.get(name)
        if used_for not in (None, checked.digest):
            raise _refusal("This id was used for another request; choose a new one for each.", "reused")
        # Work may stop later than its deadline is over.
        if running is not None and (used_for is None or running.away is None):
            raise _refusal("This request is being answered.", "running", retry_after=1.0)
        if used_for is None:
            return False
        if running is None and not self._kept(name):
            raise _refusal("This request was made before, and its answer is not kept any more.", "replayed")
        return True

    def begin(
        self, stream: Stream, checked: CheckedRequest, until: float, work: Work, again: Bill, over: Callable[[], None]
    ) -> Running:
        """Starts to serve an order on `stream`; `listen` comes next, at once. RetryElsewhere if it cannot be begun, CallerFault
        if nobody would begin it.

        It ends by `until`, on the loop's clock. `again` has its receipt sent once more; `over` is called when the work has
        stopped, whoever still listens.
        """
        if self.known(checked):
            raise _refusal("This request is being answered.", "running", retry_after=1.0)
        if checked.request.deadline > time.time() + FARTHEST:
            raise CallerFault(f"No request may take longer than {LONGEST_SECONDS} s.", code="deadline")
        if self._once.full:
            raise RetryElsewhere("Too many requests were made here lately.", status=429, code="busy", retry_after=1.0)
        name, copies = _name(checked), self._copies
        self._once.use(name, checked.digest, checked.request.deadline)
        if copies is not None:
            copies.forget(name)  # of an order whose deadline is over
        outlet = Outlet(stream, copies.begin() if copies is not None else None, copies)
        running = self._running[name] = Running(name, outlet, again, over)
        running.task = self._loop.create_task(work(outlet))
        running.due = self._loop.call_at(until, running.expire)
        running.task.add_done_callback(partial(self._over, running))
        return running

    async def resume(self, stream: Stream, checked: CheckedRequest) -> None:
        """Says on `stream` what an order that is `known` got as an answer, or gets. RetryElsewhere (409) if it is gone by now."""
        name = _name(checked)
        if not self.known(checked):
            raise _refusal("This request has failed, make a new one.", "replayed")
        running = self._running.get(name)
        if running is None:
            await self._repeat(stream, name)
            return
        assert running.away is not None
        running.moves += 1
        if running.moves > REPEATS:
            raise _too_often()
        running.away.cancel()
        running.away = None
        await self.listen(running, stream, moved=True)

    async def close(self) -> None:
        """Ends what waits for clients that are away, and forgets all answers. After the last connection."""
        left = tuple(self._running.values())
        for running in left:
            running.end()
        await asyncio.gather(*(running.task for running in left), return_exceptions=True)
        if self._tidying is not None:
            self._tidying.cancel()
        if self._copies is not None:
            self._copies.clear()

    async def listen(self, running: Running, stream: Stream, *, moved: bool = False) -> None:
        """Until the work is over, or nobody listens on `stream` any more; errors of the work pass through."""
        try:
            if moved:
                await running.outlet.move(stream)
            await running.stopped.wait()
        except BaseException:
            if running.outlet.lost and not running.task.done():
                assert self._copies is not None
                running.outlet.leave()
                running.away = self._loop.call_later(self._copies.seconds, running.end)
            else:  # the end goes out when the work has really stopped
                running.end()
                await running.stopped.wait()
            raise
        if running.task.cancelled():
            raise overdue() if running.late else _refusal("The answer to this request was given up.", "replayed")
        running.task.result()

    def _over(self, running: Running, done: asyncio.Task[None]) -> None:
        running.due.cancel()
        running.stopped.set()
        name, outlet = running.name, running.outlet
        del self._running[name]
        error = None if done.cancelled() else done.exception()
        if outlet.draft is None:
            self._once.forget(name)
        if self._copies is not None and outlet.copy is not None:
            if done.cancelled() or error is not None or outlet.draft is None or outlet.done is None:
                self._copies.drop(outlet.copy)
            else:
                whole = Whole(outlet.done, outlet.draft, running.again)
                self._copies.keep(name, outlet.copy, whole, self._loop.time())
                self._tidy_later()
        if running.away is not None:
            running.away.cancel()
            if error is not None and not isinstance(error, RetryElsewhere | CallerFault):
                logger.opt(exception=error).error("answering a client that was away failed")
        running.over()

    async def _repeat(self, stream: Stream, name: bytes) -> None:
        assert self._copies is not None
        found = self._copies.find(name)
        assert found is not None
        copy, whole = found
        copy.repeats += 1
        if copy.repeats > REPEATS:
            raise _too_often()
        await say(stream, copy)
        await stream.finish(whole.done)
        whole.bill(stream.connection, whole.draft)

    def _kept(self, name: bytes) -> bool:
        """Whether there is an answer that is over, but not its time."""
        if self._copies is None:
            return False
        self._copies.expire(self._loop.time())
        return self._copies.find(name) is not None

    def _tidy_later(self) -> None:
        if self._tidying is None:
            self._tidy()

    def _tidy(self) -> None:
        """Forgets what was kept for long enough, and looks again when more was: at once for all of a while, not for each."""
        assert self._copies is not None
        now = self._loop.time()
        until = self._copies.expire(now)
        again = now + self._copies.seconds / TIDYINGS
        self._tidying = None if until is None else self._loop.call_at(max(until, again), self._tidy)


def _name(checked: CheckedRequest) -> bytes:
    """What the client calls it: nobody else can sign that."""
    return checked.request.client + checked.request.request_id


def overdue() -> RetryElsewhere:
    """What a client is told of a request whose deadline is over."""
    return RetryElsewhere("The answer took too long.", status=504, code="deadline")


def _refusal(message: str, code: str, retry_after: float | None = None) -> RetryElsewhere:
    return RetryElsewhere(message, status=409, code=code, retry_after=retry_after)


def _too_often() -> RetryElsewhere:
    return _refusal("This answer was asked for too often.", "replayed")
