"""A client's money on one chain, at hand where requests leave: lanes to executors, opened once and closed when idle.

Only the first request of a lane asks anybody: the journal, what is known of the lane, and the executor, what it can prove.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import msgspec
from loguru import logger

from lloom.adapters.bridge import Connection
from lloom.adapters.payment.payables import Purchasing
from lloom.adapters.routing.lane import Lane, Ledger, Wallet
from lloom.adapters.routing.purchase import Purchase, Tab
from lloom.adapters.routing.statement import Statement, statement
from lloom.core import receipt, tokens
from lloom.core.chat import ChatRequest
from lloom.core.errors import LloomError
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import SignedReceipt
from lloom.core.order import Client, Nonce, Order, Paying
from lloom.core.payment import counting
from lloom.core.payment.payable import Standing
from lloom.core.selection import Candidate

SHORT: Final = 2048
"""Bytes of a body whose tokens are counted at once; longer ones in a thread."""
FIRST: Final = 0
"""A lane's number, unless somebody else signs with our key on that one."""
FAREWELL_SECONDS: Final = 1.0
"""How long a node that stops waits for the receipts of its last answers."""


class Bank(Ledger, Protocol):
    """A ledger that also knows what is paid in."""

    async def purchasing(self) -> Purchasing: ...


@dataclass(frozen=True, slots=True)
class Paid:
    """One paid answer, as those who receive it see it."""

    purse: Purse
    lane: Lane
    purchase: Purchase

    def arrived(self, offset: int, data: bytes) -> None:
        """More of the answer is here; `offset`: so much came before."""
        self.purchase.tally.feed(offset, data)
        self.purse.touch(self.lane)
        self.lane.progress()

    def over(self, arrived: int, lost: bool, counted: Callable[[], None]) -> None:
        """The answer has ended after `arrived` bytes; `counted` is called when its receipt can be judged."""
        self.purchase.lost = lost
        if not arrived:  # who delivered nothing charges nothing
            self.lane.give_up(self.purchase)
        self.purchase.over(asyncio.get_running_loop().time(), counted)
        self.purse.touch(self.lane)

    def settle(self, signed: SignedReceipt, problem: str | None) -> None:
        """The receipt of an answer that is counted; `problem`: how it contradicts the order."""
        said = receipt.read_receipt(signed.receipt)
        self.lane.settle(self.purchase, signed, said, problem or self.purchase.problem(said))
        self.purse.touch(self.lane)


class Purse:
    """All lanes of one chain and token. `judge(executor, signed)` takes a receipt that came late, if its order is known."""

    def __init__(self, wallet: Wallet, bank: Bank, judge: Callable[[NodeId, SignedReceipt], bool]) -> None:
        self.wallet = wallet
        self.looked = asyncio.Event()
        """Whether the chain was asked what is paid in."""
        self._bank = bank
        self._client = Client(wallet.identity, wallet.domain)
        self._judge = judge
        self._lanes: dict[NodeId, Lane] = {}
        self._opening: dict[NodeId, asyncio.Task[Lane]] = {}
        self._tidying: dict[Lane, asyncio.TimerHandle] = {}
        self._works: set[asyncio.Task[None]] = set()
        self._encodings: set[str] = set()
        self._purchasing: Purchasing | None = None
        self._used = asyncio.Event()
        self._moved = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def problem(self) -> str | None:
        """Why nothing can be paid here; None if it can, as far as that is known."""
        found = self._purchasing
        if found is None or found.available is None:
            return f"no server of the chain {self.wallet.name} has told yet what is paid in"
        if found.available <= 0:
            return f"nothing is paid in on {self.wallet.name} that could be spent: command=deposit does that"
        return None

    async def order(
        self, candidate: Candidate, chat: ChatRequest, tab: Tab, connection: Connection, ending: tuple[Nonce, int]
    ) -> tuple[Order, Paid]:
        """The order of `chat` with a voucher that covers it. `ending`: its nonce and its deadline (Unix seconds).

        RetryElsewhere as `Lane.cover`; PeerFault if the executor shows of its lane what it cannot have.
        """
        wallet = self.wallet
        self._used.set()
        count = await self._prompt(chat, candidate.terms.encoding, tab)
        most = counting.accepted(count, candidate.quote.basis, wallet.settings)
        lane = self._lanes.get(candidate.executor) or await self._opened(candidate.executor, connection)
        spent = tab.spent[wallet.domain.chain_id, wallet.domain.contract, wallet.token]
        paying = Paying(wallet.domain, lane.payable.number, most, spent)
        order = self._client.order(chat, candidate, *ending, paying)
        purchase = Purchase(order, candidate.place, candidate.terms.encoding, tab, wallet.settings)
        voucher = await lane.cover(purchase, connection)
        self.touch(lane)
        order = replace(order, call=msgspec.structs.replace(order.call, voucher=voucher))
        return order, Paid(self, lane, purchase)

    def need(self, connection: Connection, number: int, cumulative: int) -> None:
        """An executor's answers wait for credit."""
        lane = self._lanes.get(connection.peer)
        if lane is not None and lane.payable.number == number:
            lane.need(cumulative, connection)

    def doubt(self, executor: NodeId) -> None:
        """An executor wants more than we think it may: it is asked what it knows, behind the requests."""
        lane = self._lanes.get(executor)
        if lane is not None:
            self._own(self._recover(lane))

    def touch(self, lane: Lane) -> None:
        """Something happened on `lane`: it is not idle."""
        lane.touched = self._loop.time()
        self._moved.set()
        if lane not in self._tidying:
            self._tidying[lane] = self._loop.call_later(self.wallet.settings.closing_seconds, self._tidy, lane)

    def start(self) -> None:
        """Begins to keep an eye on what is paid in; `close` ends that."""
        self._own(self._watch())

    async def _watch(self) -> None:
        """Looks as long as somebody spends something, or there is nothing."""
        while True:
            try:
                self._purchasing = await self._bank.purchasing()
            except LloomError as error:
                logger.debug("what is paid in on {} is not known: {}", self.wallet.name, error)
            self.looked.set()
            await asyncio.sleep(self.wallet.settings.settlement.check_seconds)
            if self.problem() is None:
                await self._used.wait()
                self._used.clear()

    async def close(self) -> None:
        """Takes the last receipts, and sends each executor a voucher that includes them. Before the connections close."""
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

    async def _prompt(self, chat: ChatRequest, encoding: str, tab: Tab) -> int:
        """Tokens of the prompt; only a long one, or an encoding that is not loaded yet, makes anybody wait."""
        encoding = counting.known(encoding)
        if encoding not in self._encodings:
            await asyncio.to_thread(tokens.count, "", encoding)
            self._encodings.add(encoding)
        if encoding not in tab.prompts:
            if len(chat.body) <= SHORT:
                tab.prompts[encoding] = counting.prompt(chat.body, encoding)
            else:
                tab.prompts[encoding] = await asyncio.to_thread(counting.prompt, chat.body, encoding)
        return tab.prompts[encoding]

    async def _opened(self, executor: NodeId, connection: Connection) -> Lane:
        """The lane to `executor`, opened once for however many requests."""
        task = self._opening.get(executor)
        if task is None:
            task = self._opening[executor] = self._loop.create_task(self._open(executor, connection))
            task.add_done_callback(lambda done: self._opened_now(executor, done))
        return await asyncio.shield(task)

    def _opened_now(self, executor: NodeId, done: asyncio.Task[Lane]) -> None:
        del self._opening[executor]
        if not done.cancelled():
            done.exception()  # those who waited for it may all have gone

    async def _open(self, executor: NodeId, connection: Connection) -> Lane:
        standing = await self._bank.lane(executor)
        known = standing or Standing(FIRST)
        said = await self._ask(connection, known.number, known.seq)
        shown = None if said.voucher is None else said.voucher.voucher.cumulative
        if standing is None:
            standing = await self._taken_over(executor, said)
        elif shown is not None and shown > standing.ceiling:
            return await self._elsewhere(executor)
        lane = self._lanes[executor] = Lane(executor, standing, self.wallet)
        lane.connection = connection
        if shown is not None:
            lane.payable.shown(shown)
        if standing.seq < said.seq:
            self._take(lane, said)
        return lane

    async def _taken_over(self, executor: NodeId, said: Statement) -> Standing:
        """A lane that the journal does not know: fresh, or from before it was lost. What we signed is promised all the same."""
        if said.voucher is None:
            return Standing(FIRST, seq=said.seq, charged=said.charged)
        promised, signed = said.voucher.voucher.cumulative, said.voucher.signed
        logger.warning("the journal does not know of {} promised to {}", promised, checksum(executor))
        accepted = min(said.charged, promised)
        standing = Standing(FIRST, promised, accepted, signed.usages, said.seq, said.charged, signed.left_out)
        return await self._bank.adopt(executor, standing)

    async def _elsewhere(self, executor: NodeId) -> Lane:
        """Somebody else signs on this lane with our key: another process, or one from before a backup was restored."""
        logger.warning(
            "another process signs vouchers for {} with this node's key: a new lane begins", checksum(executor)
        )
        standing = await self._bank.adopt(executor, Standing(secrets.randbits(62) | 1 << 62))
        lane = self._lanes[executor] = Lane(executor, standing, self.wallet)
        return lane

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
        wallet = self.wallet
        return await statement(
            connection, wallet.domain, receipt.Lane(wallet.identity.address, wallet.token, number), since
        )

    def _take(self, lane: Lane, said: Statement) -> None:
        """Receipts that did not come by themselves. One that is invented is enough: the others are not looked at."""
        for signed, each in said.receipts:
            if not self._judge(lane.executor, signed) and not lane.orphan(signed, each):
                return

    def _tidy(self, lane: Lane) -> None:
        """Some time after something happened on `lane`."""
        del self._tidying[lane]
        quiet = self._loop.time() - lane.touched
        if quiet < 0.9 * self.wallet.settings.closing_seconds:
            wait = self.wallet.settings.closing_seconds - quiet
            self._tidying[lane] = self._loop.call_later(wait, self._tidy, lane)
        elif lane.payable.unsaid or lane.payable.numbering.gap or _awaits(lane):
            self._own(self._conclude(lane))

    async def _conclude(self, lane: Lane) -> None:
        """The lane is idle: what is missing is asked for once, then the executor gets a voucher over what was accepted."""
        if lane.payable.numbering.gap or _awaits(lane):
            await self._recover(lane)
        for purchase in [each for each in lane.purchases.values() if each.ended_at is not None and each.counted]:
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
    return any(purchase.ended_at is not None for purchase in lane.purchases.values())
