"""What was ordered and what arrived, until the executor's receipt of it is here and checked. It settles nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from loguru import logger

from lloom.adapters.bridge import Connection
from lloom.core.eip712 import Domain
from lloom.core.errors import PeerFault
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import Control, Receipts, SignedReceipt
from lloom.core.order import Order
from lloom.core.receipt import Delivery, ResponseHash, check_receipt, read_receipt

_MAX_OPEN: Final = 16_384
"""Orders without a receipt; the oldest is given up: who delivered nothing sends none."""


class Expected:
    """One order at one executor, and what has arrived of it."""

    __slots__ = ("arrived", "early", "order")

    def __init__(self, order: Order) -> None:
        self.order = order
        self.arrived: ResponseHash | None = None
        self.early: SignedReceipt | None = None
        """A receipt can overtake the last bytes of its answer, which wait for a slow reader."""

    def delivery(self, arrived: ResponseHash) -> Delivery:
        order, length = self.order, arrived.length
        return Delivery(order.request, order.digest, order.quote, arrived.digest(length), length)


class Deliveries:
    """All orders whose receipts are awaited. Checked ones go to `on_receipt(executor, signed)`."""

    def __init__(self, domain: Domain, on_receipt: Callable[[NodeId, SignedReceipt], None]) -> None:
        self._domain = domain
        self._on_receipt = on_receipt
        self._open: OrderedDict[bytes, Expected] = OrderedDict()

    def expect(self, order: Order) -> Expected:
        """From now on a receipt of `order` is awaited."""
        expected = Expected(order)
        self._open[order.digest] = expected
        if len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)
        return expected

    def arrived(self, expected: Expected, response: ResponseHash) -> None:
        """The answer is over, whatever way; `response` covers every byte of it that arrived."""
        expected.arrived = response
        if expected.early is not None:
            self._settle(expected, expected.early)

    def on_control(self, connection: Connection, message: Control) -> None:
        """Takes what an executor says beside its answers."""
        for signed in message.items if isinstance(message, Receipts) else ():
            try:
                self._take(connection.peer, signed)
            except PeerFault as error:
                logger.warning("a receipt of {} was refused: {}", checksum(connection.peer), error)

    def _take(self, executor: NodeId, signed: SignedReceipt) -> None:
        expected = self._open.get(read_receipt(signed.receipt).request_digest)
        if expected is None or expected.order.quote.executor != executor:
            logger.debug("{} sent a receipt of no order that is open", checksum(executor))
        elif expected.arrived is None:
            expected.early = signed
        else:
            self._settle(expected, signed)

    def _settle(self, expected: Expected, signed: SignedReceipt) -> None:
        assert expected.arrived is not None
        executor = NodeId(expected.order.quote.executor)
        try:
            check_receipt(signed, expected.delivery(expected.arrived), self._domain)
        except PeerFault as error:
            logger.warning("a receipt was refused: {}", error)
            return
        del self._open[expected.order.digest]
        self._on_receipt(executor, signed)
