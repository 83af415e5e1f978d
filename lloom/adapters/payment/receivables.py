"""The executor's ledger: leases for its Workers, vouchers, receipts. Everything is on the disk before anybody hears of it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from loguru import logger
from msgspec.structs import replace

from lloom.adapters.journal import lanes
from lloom.adapters.journal.writer import Writer
from lloom.adapters.payment.treasury import Treasury, relied_on
from lloom.core.billing.lane import Lane
from lloom.core.billing.receipt import Draft, Receipt
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId
from lloom.core.messages import LaneCall, LaneState, SignedReceipt, wei
from lloom.core.payment import receivable
from lloom.core.payment.funds import LaneFunds
from lloom.core.payment.receivable import Ask, Client, Grant, Holder, Means, Reason, Receivable

MAX_LANES: Final = 64
"""Lanes of one client: each stays in the journal. A client opens one for each process that pays, and for each lost journal."""
MAX_RECEIPTS: Final = 1000
"""In one answer to a `LaneCall`."""
ROWS_PER_ASK: Final = 3

Recall = Callable[[Holder, list[Lane]], Awaitable[list[Ask]]]
"""Asks a Worker to give back what it does not use; none, if it is that one no more."""
_NOTHING: Final = Means(0, 0)


@dataclass(frozen=True, slots=True)
class _Known:
    """What the chain tells about the lanes of some asks. Clients that are missing are not known: it does not answer."""

    means: Mapping[bytes, Means]
    lanes: Mapping[Lane, LaneFunds]
    news: frozenset[Lane]
    """Those of which it has told just now: the journal may not know it."""


@dataclass(frozen=True, slots=True)
class _Answer:
    grant: Grant
    others: Sequence[Holder] = ()
    """Workers that could give something back."""


class Receivables:
    """What is owed on one chain."""

    def __init__(
        self, writer: Writer, treasury: Treasury, sign: Callable[[Receipt], SignedReceipt], credit: int, recall: Recall
    ) -> None:
        """`credit`: what a client may owe beyond its vouchers."""
        self._writer = writer
        self._treasury = treasury
        self._sign = sign
        self._credit = credit
        self._recall = recall

    async def lend(self, holder: Holder, asks: list[Ask]) -> list[Grant]:
        """Stores the vouchers within, and grants what they cover; once that is on the disk.

        Whom the chain said nothing good of a while ago, it is asked about again; and if other Workers hold what somebody waits
        for, they are asked to give back what they do not use. RetryElsewhere as `issue`.
        """
        known = await self._look_up(asks)
        answers = {ask.lane: answer for ask, answer in await self._lend(holder, asks, known)}
        if poor := [ask for ask in asks if self._may_be_richer(answers[ask.lane].grant)]:
            await self._treasury.renew({ask.lane.client for ask in poor})
            known = await self._look_up(asks)
            answers |= {ask.lane: answer for ask, answer in await self._lend(holder, poor, known)}
        lacking = [ask for ask in asks if answers[ask.lane].others]
        if back := await self._have_back([(ask.lane, answers[ask.lane].others) for ask in lacking]):
            answers |= {ask.lane: answer for ask, answer in await self._lend(holder, lacking, known, back)}
        return [answers[ask.lane].grant for ask in asks]

    async def issue(self, holder: Holder, drafts: list[Draft]) -> list[SignedReceipt]:
        """The signed receipts of what a Worker delivered, once they are on the disk, as `journal.receipts.issue`."""
        return await self._writer.write(lambda db: lanes.issue(db, holder, drafts, self._sign), 3 * len(drafts))

    async def lane(self, client: NodeId, call: LaneCall) -> LaneState:
        """What is known of a client's lane."""
        lane = Lane(client, call.token, call.lane)

        def read(db: sqlite3.Connection) -> LaneState:
            seq, charged, receipts = lanes.since(db, lane, call.since, MAX_RECEIPTS)
            return LaneState(wei(charged), seq, wei(self._credit), lanes.voucher(db, lane), tuple(receipts))

        return await self._writer.write(read, 1)

    async def enlist(self, holder: Holder) -> None:
        """A Worker is there: what it had leased in an earlier life is free again."""
        await self._writer.write(lambda db: lanes.enlist(db, holder), 1)

    async def take_back(self, client: bytes) -> None:
        """Has Workers give back what they do not use of a client's lanes: what was lent outlasts no deposit that is taken out."""
        held = await self._writer.write(lambda db: lanes.leased(db, client), 1)
        back = await self._have_back([(each.lane, [lease.holder for lease in each.leases]) for each in held])
        if back:
            await self._lend(back[0][0], (), _Known({}, {}, frozenset()), back)

    def _may_be_richer(self, grant: Grant) -> bool:
        client, seconds = grant.lane.client, self._treasury.policy.limits.check_seconds
        return grant.short > 0 and grant.reason == "funds" and self._treasury.aged(client, seconds)

    async def _look_up(self, asks: Sequence[Ask]) -> _Known:
        clients = list({ask.lane.client for ask in asks})
        found = await asyncio.gather(*map(self._treasury.means, clients), return_exceptions=True)
        means = {client: each for client, each in zip(clients, found, strict=True) if isinstance(each, Means)}
        strange = [ask.lane for ask in asks if ask.lane.client in means and self._treasury.known(ask.lane) is None]
        funds = await asyncio.gather(*map(self._treasury.lane, strange), return_exceptions=True)
        for problem in (*found, *funds):
            if isinstance(problem, BaseException):
                _tell(problem)
        lanes = {ask.lane: known for ask in asks if (known := self._treasury.known(ask.lane)) is not None}
        return _Known(means, lanes, frozenset(strange))

    async def _lend(
        self, holder: Holder, asks: Sequence[Ask], known: _Known, back: Sequence[tuple[Holder, Ask]] = ()
    ) -> list[tuple[Ask, _Answer]]:
        """In one commit with what others give `back` for it: else whoever comes in between would take that, mostly they again."""
        now = time.time()

        def write(db: sqlite3.Connection) -> list[tuple[Ask, _Answer]]:
            for other, ask in back:
                self._one(db, other, ask, known, now)
            return [(ask, self._one(db, holder, ask, known, now)) for ask in asks]

        return await self._writer.write(write, ROWS_PER_ASK * (len(asks) + len(back)))

    def _one(self, db: sqlite3.Connection, holder: Holder, ask: Ask, known: _Known, now: float) -> _Answer:
        """In the journal's thread."""
        before, chain = lanes.load(db, ask.lane), known.lanes.get(ask.lane)
        others = lanes.siblings(db, ask.lane)
        client = Client(others, known.means.get(ask.lane.client, _NOTHING), self._credit)
        unknown = ask.lane.client not in known.means or (before is None and chain is None)
        if before is None and (refusal := _refusal(ask, others, unknown)):
            return _Answer(refusal)
        state = before or _opened(ask.lane, chain)
        if before is None or ask.lane in known.news:
            state = _on_chain(state, chain)
        if ask.voucher is not None:
            state = receivable.vouched(state, ask.voucher.voucher.cumulative)
        after, grant = receivable.lend(state, holder, ask, client)
        if before is None and not grant.granted:  # nothing is kept of who has nothing
            return _Answer(grant)
        self._store(db, before, after, ask, now)
        if unknown and grant.short:
            grant = replace(grant, reason="chain")
        free = sum(lease.open for lease in receivable.elsewhere(after, holder))
        holders = [lease.holder for lease in receivable.elsewhere(after, holder)] if free >= grant.short > 0 else []
        return _Answer(grant, holders)

    @staticmethod
    def _store(db: sqlite3.Connection, before: Receivable | None, after: Receivable, ask: Ask, now: float) -> None:
        """The voucher first: `keep` compares it with the one before."""
        vouched = before.vouched if before else 0
        lanes.save(db, before, replace(after, vouched=vouched))
        if ask.voucher is not None:
            lanes.keep(db, ask.voucher, now)

    async def _have_back(self, lacking: Sequence[tuple[Lane, Sequence[Holder]]]) -> list[tuple[Holder, Ask]]:
        """What other Workers do not use of these lanes."""
        wanted: dict[Holder, list[Lane]] = {}
        for lane, holders in lacking:
            for holder in holders:
                wanted.setdefault(holder, []).append(lane)
        back: list[tuple[Holder, Ask]] = []
        for holder, which in wanted.items():
            try:
                back += [(holder, ask) for ask in await self._recall(holder, which)]
            except RetryElsewhere as error:
                logger.debug("{} gave nothing back: {}", holder.name, error)
        return back


def _opened(lane: Lane, chain: LaneFunds | None) -> Receivable:
    """A lane that the journal does not know: what was paid on it before was for something."""
    claimed = chain.claimed if chain else 0
    return Receivable(lane=lane, vouched=0, charged=claimed, claimed=claimed, confirmed=claimed)


def _on_chain(state: Receivable, chain: LaneFunds | None) -> Receivable:
    return state if chain is None else receivable.paid(state, chain.claimed, 0, relied_on(chain))


def _refusal(ask: Ask, others: Sequence[Receivable], unknown: bool) -> Grant | None:
    """Why a lane is not opened at all."""
    reason: Reason = "lanes" if len(others) >= MAX_LANES else "chain" if unknown else ""
    if not reason:
        return None
    return Grant(lane=ask.lane, number=ask.number, granted=0, spent=0, short=ask.least, reason=reason)


def _tell(problem: BaseException) -> None:
    if not isinstance(problem, RetryElsewhere):
        raise problem
    logger.warning("the chain does not say what a client has: {}", problem)
