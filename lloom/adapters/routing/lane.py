"""A client's lane to one executor while this process lives: signs vouchers, raises its ceiling ahead, judges receipts.

What may be signed the ledger says (core/payment/payable.py); nothing is signed above what the journal has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from loguru import logger

from lloom.adapters.bridge import Connection
from lloom.adapters.routing.purchase import Purchase
from lloom.core.eip712 import Domain
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity, NodeId, checksum, keccak
from lloom.core.messages import SignedReceipt, SignedVoucher
from lloom.core.outcomes import Place
from lloom.core.payment import voucher
from lloom.core.payment.payable import Judged, Payable, Standing
from lloom.core.payment.promises import Ask, Raised
from lloom.core.receipt import Receipt
from lloom.core.settings import AccountingSettings

SHARE: Final = 4
"""A ceiling is raised by this part of `prepay.per_executor` beyond what is needed now, so that it need not be soon again."""
PAUSE_SECONDS: Final = 0.1
"""After a raise in vain, before the next one that nobody waits for."""
REST_SECONDS: Final = 0.01
"""After a need was looked at: all open answers are counted for it, and whoever needs without end should not keep us busy."""


class Ledger(Protocol):
    """The actor that keeps the journal of one chain (`adapters/payment/payables.py`). RetryElsewhere while it is away."""

    async def lane(self, executor: NodeId) -> Standing | None: ...
    async def adopt(self, executor: NodeId, standing: Standing) -> Standing: ...
    async def raise_ceiling(self, ask: Ask) -> Raised: ...
    def keep(self, judged: Judged) -> None:
        """Is not waited for."""


@dataclass(frozen=True, slots=True)
class Wallet:
    """What all lanes of one chain share. `lied` hears which place was caught."""

    name: str
    identity: Identity
    domain: Domain
    token: bytes
    settings: AccountingSettings
    ledger: Ledger
    lied: Callable[[Place], None]


class Lane:
    """`connection`: the one that was used last."""

    def __init__(self, executor: NodeId, standing: Standing, wallet: Wallet) -> None:
        self.executor = executor
        self.payable = Payable(standing)
        self.connection: Connection | None = None
        self.purchases: dict[bytes, Purchase] = {}
        """Those without a receipt, by the request's digest."""
        self.touched = 0.0
        """When something happened here last, on the loop's clock."""
        self._wallet = wallet
        self._wanted = 0
        self._waiting = 0
        self._rest: asyncio.TimerHandle | None = None
        self._missed = False
        self._raising: asyncio.Task[Raised] | None = None
        self._again = 0.0
        self._latest: SignedVoucher | None = None
        self._told: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()
        self._loop = asyncio.get_running_loop()

    async def cover(self, purchase: Purchase, connection: Connection) -> SignedVoucher:
        """The voucher that covers one more request, to be sent with it. It waits only where the ceiling is too low: on a warm
        lane it is not.

        RetryElsewhere (402) if a limit forbids it: `prepay_limit`, `budget`, `no_funds`.
        """
        payable, draw = self.payable, purchase.draw
        self._waiting += draw
        try:
            while (reach := self._reach(draw)) > payable.ceiling:
                await self._room(reach)
        finally:
            self._waiting -= draw
        payable.grants[purchase.order.digest] = draw
        self.purchases[purchase.order.digest] = purchase
        signed = self._sign(reach)
        self.connection = connection
        self._told[connection] = reach
        self._raise_ahead()
        return signed

    def need(self, cumulative: int, connection: Connection) -> None:
        """The executor says on `connection` that its answers go on once it has a voucher over so much."""
        self.connection = connection
        self._wanted = max(self._wanted, cumulative)
        if self._wanted <= self.payable.signed:
            self._wanted = 0
            if self._told.get(connection, -1) < self.payable.signed:  # it may have been lost with another connection
                self._send(self._latest or self._sign(self.payable.signed))
        elif self._rest is None:
            self._progress(self.purchases.values())
            self._rest = self._loop.call_later(REST_SECONDS, self._rested)
        else:
            self._missed = True

    def progress(self, purchase: Purchase) -> None:
        """More of an answer has arrived: if the executor needs credit, it gets what it has earned."""
        if self._wanted:
            self._progress((purchase,))

    def _rested(self) -> None:
        self._rest = None
        if self._missed and self._wanted:
            self._missed = False
            self._progress(self.purchases.values())

    def _progress(self, moved: Iterable[Purchase]) -> None:
        payable, prepay = self.payable, self._wallet.settings.prepay
        allowed = {purchase.order.digest: purchase.allowance() for purchase in moved}
        window = max((purchase.window for purchase in self.purchases.values()), default=0)
        due = payable.answer(self._wanted, allowed, int(prepay.ahead * window), prepay)
        if due < self._wanted and due - payable.signed <= window // SHARE:
            return  # a signature for every token would be none too many for the executor, but for us
        if due > payable.ceiling:
            if self._raising is None and self._loop.time() >= self._again:
                self._raise(due)
            return
        if due > payable.signed:
            self._send(self._sign(due))
        if payable.signed >= self._wanted:
            self._wanted = 0

    def settle(self, purchase: Purchase, signed: SignedReceipt, receipt: Receipt, problem: str | None) -> None:
        """The receipt of `purchase` came; `problem`: what is wrong with it in itself."""
        digest = purchase.order.digest
        self.purchases.pop(digest, None)
        problem = self._place_on_lane(signed, receipt) or problem
        if problem is None:
            purchase.pay(receipt)
            self.payable.accept(digest, receipt)
            self._raise_ahead()
        else:
            self._dispute(digest, receipt, problem)
            if not purchase.lost:
                self._wallet.lied(purchase.place)
        self._keep(signed, problem or "")

    def orphan(self, signed: SignedReceipt, receipt: Receipt) -> bool:
        """A receipt, signed by the executor, of a request that this process does not know: an earlier one may have made it.

        Whether it is accepted.
        """
        if self.payable.numbering.knows(keccak(signed.receipt), receipt.lane_seq):
            return True
        problem = self._place_on_lane(signed, receipt)
        if problem is None and receipt.cost and not self.payable.covers(receipt):
            problem = "a charge for a request that nobody made"
        if problem is None:
            self.payable.accept(receipt.request_digest, receipt)
        else:
            self._dispute(receipt.request_digest, receipt, problem)
        self._keep(signed, problem or "")
        return problem is None

    def give_up(self, purchase: Purchase) -> None:
        """No receipt is to come, as far as one can see: its grant is free. One that comes all the same is judged."""
        self.purchases.pop(purchase.order.digest, None)
        self.payable.drop(purchase.order.digest)

    async def close(self) -> None:
        """Sends a voucher that tells what was accepted, unless the latest one does. RetryElsewhere if a limit forbids it."""
        if not self.payable.unsaid:
            return
        due = max(self.payable.signed, self.payable.accepted)
        if due > self.payable.ceiling:
            await self._room(due)
        self._send(self._sign(max(self.payable.signed, self.payable.accepted)))

    def _reach(self, draw: int) -> int:
        reach = self.payable.reach(draw, self._wallet.settings.prepay)
        if reach is None:
            raise RetryElsewhere(
                f"This request and those that are open at {checksum(self.executor)} may cost more before they are delivered than "
                f"accounting.prepay.per_executor allows ({self._wallet.settings.prepay.per_executor}).",
                status=402,
                code="prepay_limit",
            )
        return reach

    async def _room(self, reach: int) -> None:
        """Returns when the ceiling may have changed; RetryElsewhere if it cannot be as high as `reach`."""
        raising = self._raising
        if raising is not None:
            await asyncio.wait({raising})
            return
        raised = await asyncio.shield(self._raise(reach))
        if raised.code and raised.ceiling < reach:
            raise RetryElsewhere(raised.problem, status=402, code=raised.code)

    def _raise(self, least: int) -> asyncio.Task[Raised]:
        """Has the ceiling raised to `least` or, if possible, by so much more that it is not asked for soon again."""
        if self._raising is None:
            prepay = self._wallet.settings.prepay
            ahead = prepay.per_executor // SHARE if self.payable.accepted else 0
            best = min(least + self._waiting + ahead, self.payable.limit(prepay))
            ask = Ask(self.executor, self.payable.number, least, max(least, best))
            self._raising = self._loop.create_task(self._ask(ask))
            self._raising.add_done_callback(self._raised)
        return self._raising

    async def _ask(self, ask: Ask) -> Raised:
        try:
            raised = await self._wallet.ledger.raise_ceiling(ask)
        finally:
            self._raising = None
        if raised.ceiling <= self.payable.ceiling:
            self._again = self._loop.time() + PAUSE_SECONDS
        self.payable.raised(raised.ceiling)
        return raised

    def _raise_ahead(self) -> None:
        """Before the ceiling is reached, so that nobody waits for it."""
        payable, prepay = self.payable, self._wallet.settings.prepay
        left = payable.ceiling - payable.signed
        due = payable.accepted and 2 * SHARE * left < prepay.per_executor and payable.ceiling < payable.limit(prepay)
        if due and self._raising is None and self._loop.time() >= self._again:
            self._raise(payable.ceiling)

    def _raised(self, done: asyncio.Task[Raised]) -> None:
        """A raise is over: an executor may wait for a voucher that the ceiling was too low for."""
        if done.cancelled():
            return
        if (error := done.exception()) is not None:
            logger.debug("a ceiling could not be raised: {}", error)
            self._again = self._loop.time() + PAUSE_SECONDS
        elif self._wanted and not done.result().code:
            self._progress(())

    def _sign(self, cumulative: int) -> SignedVoucher:
        payable, wallet = self.payable, self._wallet
        payable.sign(cumulative)
        usages = voucher.usages_of(payable.usages)
        words = voucher.Voucher(
            client=wallet.identity.address,
            executor=self.executor,
            token=wallet.token,
            lane=payable.number,
            cumulative=cumulative,
            usage_hash=voucher.usage_hash(usages),
        )
        self._latest = voucher.sign(words, usages, payable.left_out, wallet.identity, wallet.domain)
        return self._latest

    def _send(self, signed: SignedVoucher) -> None:
        if self.connection is not None:
            self.connection.send_control(signed)
            self._told[self.connection] = self.payable.signed

    def _place_on_lane(self, signed: SignedReceipt, receipt: Receipt) -> str | None:
        name = keccak(signed.receipt)
        return self.payable.numbering.note(name, receipt.lane_seq, receipt.cost, receipt.lane_charged)

    def _dispute(self, digest: bytes, receipt: Receipt, problem: str) -> None:
        logger.warning("a receipt of {} is disputed: {}", checksum(self.executor), problem)
        self.payable.leave_out(digest, receipt.lane_seq)

    def _keep(self, signed: SignedReceipt, problem: str) -> None:
        payable = self.payable
        numbering = payable.numbering
        self._wallet.ledger.keep(
            Judged(self.executor, payable.number, signed, problem, numbering.seq, numbering.charged, payable.left_out)
        )
