"""A client's lane to one executor while this process lives: signs vouchers, raises its ceiling ahead, judges receipts.

What may be signed the ledger says (core/payment/payable.py); nothing is signed above what the journal has.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from typing import Final
from weakref import WeakKeyDictionary

from loguru import logger

from lloom.adapters.bridge import Connection
from lloom.adapters.routing.ceiling import Ceiling
from lloom.adapters.routing.purchase import Purchase
from lloom.adapters.routing.wallet import Wallet
from lloom.core.billing.receipt import Receipt, Status
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import SignedReceipt, SignedVoucher
from lloom.core.payment import voucher
from lloom.core.payment.payable import Judged, LaneEntry, Payable

STEPS: Final = 4
"""So many vouchers for a window: one for every token would be none too many for the executor, but for us."""
REST_SECONDS: Final = 0.01
"""After a need was looked at: all open answers are counted for it, and whoever needs without end should not keep us busy."""


class Lane:
    """`connection`: the one that was used last."""

    def __init__(self, executor: NodeId, entry: LaneEntry, wallet: Wallet) -> None:
        self.executor = executor
        self.payable = Payable(entry)
        self.ceiling = Ceiling(executor, self.payable, wallet, self._risen)
        self.connection: Connection | None = None
        self.purchases: dict[bytes, Purchase] = {}
        """Those without a receipt, by the request's digest."""
        self.touched = 0.0
        """When something happened here last, on the loop's clock."""
        self._wallet = wallet
        self._wanted = 0
        self._rest: asyncio.TimerHandle | None = None
        self._missed = False
        self._latest: SignedVoucher | None = None
        self._told: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()
        self._loop = asyncio.get_running_loop()

    async def cover(self, purchase: Purchase, connection: Connection) -> SignedVoucher | None:
        """The voucher that covers one more request, to be sent with it; None if the executor has one that does.

        It waits only where the ceiling is too low: on a warm lane it is not.

        RetryElsewhere (402) if a limit forbids it: `prepay_limit`, `budget`, `no_funds`.
        """
        digest, draw = purchase.order.digest, purchase.draw
        reach = None if self._covers(connection, draw) else await self._room(connection, draw)
        self.payable.grant(digest, draw)
        self.purchases[digest] = purchase
        self.connection = connection
        if reach is None:
            return None
        signed = self._sign(reach)
        self._told[connection] = reach
        self.ceiling.raise_ahead()
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

    def delivered(self, purchase: Purchase) -> None:
        """The answer is over and counted: what it is worth is no longer paid in advance."""
        self.payable.deliver(purchase.order.digest, purchase.worth())

    def _risen(self) -> None:
        """The ceiling is higher: an executor may wait for a voucher that it was too low for."""
        if self._wanted:
            self._progress(())

    def _rested(self) -> None:
        self._rest = None
        if self._missed and self._wanted:
            self._missed = False
            self._progress(self.purchases.values())

    def _progress(self, moved: Iterable[Purchase]) -> None:
        payable, prepay = self.payable, self._wallet.settings.prepay
        allowed = {purchase.order.digest: purchase.allowance() for purchase in moved}
        window = max((purchase.window for purchase in self.purchases.values()), default=0)
        due = payable.answer(self._wanted, allowed, payable.ahead(window, prepay), prepay)
        if due < self._wanted and due - payable.signed <= window // STEPS:
            return
        if due > payable.ceiling:
            self.ceiling.raise_soon(due)
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
            self.ceiling.raise_ahead()
            self._wallet.judged(purchase.place, True)
        else:
            purchase.unbilled()
            self._dispute(digest, receipt, problem)
            if not purchase.lost:
                self._wallet.judged(purchase.place, False)
        self._keep(signed, problem or "")

    def orphan(self, signed: SignedReceipt, receipt: Receipt) -> bool:
        """A receipt, signed by the executor, of a request that this process does not know: an earlier one may have made it.

        Whether it is accepted, now or before: what was counted up to the first gap is never looked at again.
        """
        numbering = self.payable.numbering
        if receipt.lane_seq <= numbering.seq or numbering.knows(_name(signed), receipt.lane_seq):
            return True
        problem = self._place_on_lane(signed, receipt)
        if problem is None and receipt.cost and not self.payable.covers(receipt):
            problem = "a charge for a request that nobody made"
        if problem is None and not receipt.cost and receipt.status != Status.FAILED:  # it would count as usage
            problem = "an answer for nothing that nobody ordered"
        if problem is None:
            self.payable.recall(receipt.request_digest, receipt)
        else:
            self._dispute(receipt.request_digest, receipt, problem)
        self._keep(signed, problem or "")
        return problem is None

    def give_up(self, purchase: Purchase) -> None:
        """No receipt is to come, as far as one can see: its grant is free. One that comes all the same is judged."""
        self.purchases.pop(purchase.order.digest, None)
        self.payable.drop(purchase.order.digest)
        self._told.clear()  # a voucher that it went with was not taken, perhaps
        purchase.unbilled()

    async def close(self) -> None:
        """Sends a voucher that tells what was accepted, unless the latest one does. RetryElsewhere if a limit forbids it."""
        if not self.payable.unsaid:
            return
        due = max(self.payable.signed, self.payable.accepted)
        if due > self.payable.ceiling:
            await self.ceiling.room(due)
        self._send(self._sign(max(self.payable.signed, self.payable.accepted)))

    async def _room(self, connection: Connection, draw: int) -> int | None:
        """What the next voucher comes to, once the ceiling is as high; None if meanwhile another one is enough."""
        self.ceiling.waiting += draw
        try:
            while (reach := self._reach(draw)) > self.payable.ceiling:
                await self.ceiling.room(reach)
                if self._covers(connection, draw):
                    return None
            return reach
        finally:
            self.ceiling.waiting -= draw

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

    def _covers(self, connection: Connection, draw: int) -> bool:
        """Whether what the executor was told on `connection` is enough."""
        return self._told.get(connection, -1) >= self.payable.enough(draw, self._wallet.settings.prepay)

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
            accepted=min(payable.accepted, cumulative),
            usage_hash=voucher.usage_hash(usages),
        )
        self._latest = voucher.sign(words, usages, payable.left_out, wallet.identity, wallet.domain)
        return self._latest

    def _send(self, signed: SignedVoucher) -> None:
        if self.connection is not None:
            self.connection.send_control(signed)
            self._told[self.connection] = self.payable.signed

    def _place_on_lane(self, signed: SignedReceipt, receipt: Receipt) -> str | None:
        return self.payable.numbering.note(_name(signed), receipt.lane_seq, receipt.cost, receipt.lane_charged)

    def _dispute(self, digest: bytes, receipt: Receipt, problem: str) -> None:
        logger.warning("a receipt of {} is disputed: {}", checksum(self.executor), problem)
        self.payable.leave_out(digest, receipt.lane_seq)

    def _keep(self, signed: SignedReceipt, problem: str) -> None:
        payable = self.payable
        numbering = payable.numbering
        self._wallet.ledger.keep(
            Judged(self.executor, payable.number, signed, problem, numbering.seq, numbering.charged, payable.left_out)
        )


def _name(signed: SignedReceipt) -> bytes:
    """What only this receipt has, whoever signed it how often."""
    return hashlib.sha256(signed.receipt).digest()
