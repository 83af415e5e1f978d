"""What was ordered and what arrived, until the executor's receipt of it is here and checked. It settles nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from loguru import logger

from lloom.adapters.bridge import Connection
from lloom.adapters.routing.purse import Paid
from lloom.core.billing.receipt import Delivery, check_receipt, read_receipt, request_named
from lloom.core.billing.response import ResponseHash
from lloom.core.errors import PeerFault
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import Control, Need, Receipts, SignedReceipt
from lloom.core.order import Order

FALSE_RECEIPT: Final = "bad_receipt"
"""`check_receipt`'s word for one that its executor did sign."""
_MAX_OPEN: Final = 16_384
"""Orders without a receipt; the oldest is given up: who delivered nothing sends none."""


class Expected:
    """One order at one executor, and what has arrived of it."""

    __slots__ = ("arrived", "early", "lost", "order", "paid")

    def __init__(self, order: Order, paid: Paid | None) -> None:
        self.order = order
        self.paid = paid
        """None: nobody pays."""
        self.arrived: ResponseHash | None = None
        self.lost = False
        """The connection broke: the executor may believe that it delivered more than what arrived."""
        self.early: SignedReceipt | None = None
        """A receipt can overtake the last bytes of its answer, which wait for a slow reader."""

    @property
    def countable(self) -> bool:
        """Whether all is known that a receipt of it is judged by."""
        return self.paid is None or self.paid.purchase.counted

    def delivery(self, arrived: ResponseHash) -> Delivery:
        order, length = self.order, arrived.length
        return Delivery(order.request, order.digest, order.quote, arrived.digest(length), length)


class Deliveries:
    """All orders whose receipts are awaited. Checked ones that nobody pays for go to `on_receipt(executor, signed)`.

    Those of paid orders go to the purse that paid, right or wrong. `on_need` hears of executors that wait for credit,
    `on_order` of each model that is ordered; `on_judged(executor, model, right)` of each receipt that nobody pays for.
    """

    def __init__(
        self,
        on_receipt: Callable[[NodeId, SignedReceipt], None],
        on_need: Callable[[Connection, Need], None] = lambda _connection, _need: None,
        on_order: Callable[[str], None] = lambda _model: None,
        on_judged: Callable[[NodeId, str, bool], None] = lambda _executor, _model, _right: None,
    ) -> None:
        self._on_receipt = on_receipt
        self._on_order = on_order
        self._on_need = on_need
        self._on_judged = on_judged
        self._open: OrderedDict[bytes, Expected] = OrderedDict()

    def expect(self, order: Order, paid: Paid | None = None) -> Expected:
        """From now on a receipt of `order` is awaited."""
        self._on_order(order.call.model)
        expected = Expected(order, paid)
        self._open[order.digest] = expected
        if len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)
        return expected

    def arrived(
        self, expected: Expected, response: ResponseHash, *, lost: bool = False, said: str | None = None
    ) -> None:
        """The answer is over, whatever way; `response` covers every byte of it that arrived. `lost`: the connection broke.

        `said`: all that it says, if somebody has it already.
        """
        expected.arrived, expected.lost = response, lost
        if expected.paid is not None:
            expected.paid.over(response.length, lost, lambda: self._settle_early(expected), said)
        else:
            self._settle_early(expected)

    def on_control(self, connection: Connection, message: Control) -> None:
        """Takes what an executor says beside its answers."""
        if isinstance(message, Need):
            self._on_need(connection, message)
        for signed in message.items if isinstance(message, Receipts) else ():
            try:
                if not self.take(connection.peer, signed):
                    logger.debug("{} sent a receipt of no order that is open", checksum(connection.peer))
            except PeerFault as error:
                logger.warning("a receipt of {} was refused: {}", checksum(connection.peer), error)

    def take(self, executor: NodeId, signed: SignedReceipt) -> bool:
        """Settles the order that a receipt is of, if it is open; PeerFault if it is no receipt."""
        expected = self._open.get(request_named(signed.receipt))
        if expected is None or expected.order.quote.executor != executor:
            return False
        if expected.arrived is None or not expected.countable:
            expected.early = signed
        else:
            self._settle(expected, signed)
        return True

    def _settle_early(self, expected: Expected) -> None:
        early, expected.early = expected.early, None
        if early is not None:
            self._settle(expected, early)

    def _settle(self, expected: Expected, signed: SignedReceipt) -> None:
        assert expected.arrived is not None
        executor, problem = NodeId(expected.order.quote.executor), None
        try:
            said = check_receipt(signed, expected.delivery(expected.arrived), expected.order.domain).receipt
        except PeerFault as error:
            if expected.paid is None or error.code != FALSE_RECEIPT:
                self._refuse(executor, expected, error)
                return
            said, problem = read_receipt(signed.receipt), str(error)  # it did sign that
        self._open.pop(expected.order.digest, None)
        if expected.paid is None:
            self._on_receipt(executor, signed)
            self._on_judged(executor, expected.order.call.model, True)
        else:
            expected.paid.settle(signed, said, problem)

    def _refuse(self, executor: NodeId, expected: Expected, error: PeerFault) -> None:
        """A receipt is not taken; one that its executor did sign, true to nothing that arrived, is the last of its order."""
        logger.warning("a receipt was refused: {}", error)
        if error.code == FALSE_RECEIPT and not expected.lost:
            self._open.pop(expected.order.digest, None)
            self._on_judged(executor, expected.order.call.model, False)
