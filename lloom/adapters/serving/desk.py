"""What a till needs of its ledger."""

from __future__ import annotations

from typing import Protocol

from lloom.adapters.bridge import Connection
from lloom.core.billing.receipt import Draft
from lloom.core.identity import NodeId
from lloom.core.messages import LaneCall, LaneState
from lloom.core.payment.receivable import Ask, Grant


class Desk(Protocol):
    """Where the till's asks and bills go: the Accounting actor of its chain."""

    async def lend(self, asks: list[Ask]) -> list[Grant]:
        """Once the vouchers and grants are on the disk. RetryElsewhere if the ledger is away or busy."""

    async def lane(self, client: NodeId, call: LaneCall) -> LaneState:
        """What the ledger knows of a lane."""

    def bill(self, connection: Connection, draft: Draft) -> None:
        """Has a receipt issued, and sent over the connection; never waits. `Till.issued` hears of it."""
