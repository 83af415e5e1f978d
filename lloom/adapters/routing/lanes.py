"""All lanes of a client on one chain: opened once, tidied when idle, closed at the end. It decides no amount.

Opening asks the journal what is known of a lane, and the executor what it can prove; nothing else of this is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

from loguru import logger

from lloom.adapters.bridge import Connection
from lloom.adapters.routing.lane import Lane
from lloom.adapters.routing.statement import Statement, statement
from lloom.adapters.routing.wallet import Wallet
from lloom.core.errors import LloomError
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import SignedReceipt
from lloom.core.payment.payable import LaneEntry

FIRST: Final = 0
"""A lane's number, unless somebody else signs with our key on that one."""
FAREWELL_SECONDS: Final = 1.0
"""How long a node that stops waits for the receipts of its last answers."""


class Lanes:
    """`judge(executor, signed)` takes a receipt that did not come by itself, if its order is known."""

    def __init__(self, wallet: Wallet, judge: Callable[[NodeId, SignedReceipt], bool]) -> None:
        self._wallet = wallet
        self._judge = judge
        self._lanes: dict[NodeId, Lane] = {}
        self._opening: dict[NodeId, asyncio.Task[Lane]] = {}
        self._tidying: dict[Lane, asyncio.TimerHandle] = {}
        self._doubted: set[Lane] = set()
        self._works: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()
        self._closing = False
        self._loop = asyncio.get_running_loop()

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def get(self, executor: NodeId) -> Lane | None:
        """The lane to `executor`, None if it is not open."""
        return self._lanes.get(executor)

    async def open(self, executor: NodeId, connection: Connection) -> Lane:
        """The lane to `executor`, opened once for however many requests."""
        task = self._opening.get(executor)
        if task is None:
            task = self._opening[executor] = self._loop.create_task(self._open(executor, connection))
            task.add_done_callback(lambda done: self._opened_now(executor, done))
        return await asyncio.shield(task)

    def doubt(self, executor: NodeId) -> None:
        """The executor of an open lane is asked what it knows, behind the requests, and once for however many."""
        lane = self._lanes.get(executor)
        if lane is not None and lane not in self._doubted:
            self._doubted.add(lane)
            self._own(self._resolve(lane))

    def touch(self, lane: Lane) -> None:
        """Something happened on `lane`: it is not idle."""
        lane.touched = self._loop.time()
        if self._closing:
            self._moved.set()
        elif lane not in self._tidying:
            self._tidying[lane] = self._loop.call_later(self._wallet.settings.closing_seconds, self._tidy, lane)

    async def close(self) -> None:
        """Takes the last receipts, and sends each executor a voucher that includes them. Before the connections close."""
        self._closing = True
        for timer in self._tidying.values():
            timer.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                while any(map(_awaits, self._lanes.values())):
                    self._moved.clear()
                    await self._moved.wait()
        works = (*self._opening.values(), *self._works)
        for work in works:
            work.cancel()
        await asyncio.gather(*works, return_exceptions=True)
        await asyncio.gather(*map(self._closed, self._lanes.values()))
        for purchase in [each for lane in self._lanes.values() for each in lane.purchases.values()]:
            purchase.unbilled()

    def _opened_now(self, executor: NodeId, done: asyncio.Task[Lane]) -> None:
        del self._opening[executor]
        if not done.cancelled():
            done.exception()  # those who waited for it may all have gone

    async def _open(self, executor: NodeId, connection: Connection) -> Lane:
        entry = await self._wallet.ledger.lane(executor)
        known = entry or LaneEntry(FIRST)
        said = await self._ask(connection, known.number, known.seq)
        shown = None if said.voucher is None else said.voucher.voucher.cumulative
        if entry is None:
            entry = await self._taken_over(executor, said)
        elif shown is not None and shown > entry.ceiling:
            return await self._elsewhere(executor)
        lane = self._lanes[executor] = Lane(executor, entry, self._wallet)
        lane.connection = connection
        lane.payable.shown(shown)
        if entry.seq < said.seq:
            self._take(lane, said)
        return lane

    async def _taken_over(self, executor: NodeId, said: Statement) -> LaneEntry:
        """A lane that the journal does not know: fresh, or from before it was lost. What we signed is promised all the same."""
        if said.voucher is None:
            return LaneEntry(FIRST, seq=said.seq, charged=said.charged)
        promised, signed = said.voucher.voucher.cumulative, said.voucher.signed
        logger.warning("the journal does not know of {} promised to {}", promised, checksum(executor))
        accepted = min(said.charged, promised)
        entry = LaneEntry(FIRST, promised, accepted, signed.usages, said.seq, said.charged, signed.left_out)
        return await self._wallet.ledger.adopt(executor, entry)

    async def _elsewhere(self, executor: NodeId) -> Lane:
        """Somebody else signs on this lane with our key: another process, or one from before a backup was restored."""
        logger.warning(
            "another process signs vouchers for {} with this node's key: a new lane begins", checksum(executor)
        )
        entry = await self._wallet.ledger.adopt(executor, LaneEntry(secrets.randbits(62) | 1 << 62))
        lane = self._lanes[executor] = Lane(executor, entry, self._wallet)
        return lane

    async def _resolve(self, lane: Lane) -> None:
        try:
            await self._recover(lane)
        finally:
            self._doubted.discard(lane)

    async def _recover(self, lane: Lane) -> None:
        """Takes what the executor knows of a lane and we do not."""
        try:
            if lane.connection is None or lane.connection.session.closed:
                return
            said = await self._ask(lane.connection, lane.payable.number, lane.payable.numbering.seq)
            if said.voucher is not None and said.voucher.voucher.cumulative > lane.payable.ceiling:
                await self._elsewhere(lane.executor)
            else:
                self._take(lane, said)
        except LloomError as error:
            logger.debug("{} does not say how the lane to it stands: {}", checksum(lane.executor), error)

    async def _ask(self, connection: Connection, number: int, since: int) -> Statement:
        wallet = self._wallet
        return await statement(connection, wallet.domain, wallet.lane(number), since)

    def _take(self, lane: Lane, said: Statement) -> None:
        """Receipts that did not come by themselves. One that is invented is enough: the others are not looked at."""
        for signed, each in said.receipts:
            if not self._judge(lane.executor, signed) and not lane.orphan(signed, each):
                return

    def _tidy(self, lane: Lane) -> None:
        """Some time after something happened on `lane`."""
        del self._tidying[lane]
        quiet = self._loop.time() - lane.touched
        if quiet < 0.9 * self._wallet.settings.closing_seconds:
            wait = self._wallet.settings.closing_seconds - quiet
            self._tidying[lane] = self._loop.call_later(wait, self._tidy, lane)
        elif lane.payable.unsaid or lane.payable.numbering.gap or _awaits(lane):
            self._own(self._conclude(lane))

    async def _conclude(self, lane: Lane) -> None:
        """The lane is idle: what is missing is asked for once, then the executor gets a voucher over what was accepted."""
        if lane.payable.numbering.gap or _awaits(lane):
            await self._recover(lane)
        for purchase in [each for each in lane.purchases.values() if each.ended and each.counted]:
            lane.give_up(purchase)
        await self._closed(lane)

    async def _closed(self, lane: Lane) -> None:
        try:
            if lane.connection is not None and not lane.connection.session.closed:
                await lane.close()
        except LloomError as error:
            logger.warning("{} gets no voucher over what was accepted: {}", checksum(lane.executor), error)

    def _own(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._works.add(task)
        task.add_done_callback(self._works.discard)


def _awaits(lane: Lane) -> bool:
    """Whether an answer is over whose receipt has not come."""
    return any(purchase.ended for purchase in lane.purchases.values())
