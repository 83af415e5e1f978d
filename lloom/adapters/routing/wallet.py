"""What all lanes of one chain share: who signs, in what token, and who keeps the journal. It spends nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lloom.core.billing.lane import Lane
from lloom.core.eip712 import Domain
from lloom.core.identity import Identity, NodeId
from lloom.core.payment.payable import Judged, LaneEntry
from lloom.core.payment.promises import Ask, Raised
from lloom.core.routing.outcomes import Place
from lloom.core.settings import AccountingSettings


class Ledger(Protocol):
    """The actor that keeps the journal of one chain (`adapters/payment/payables.py`). RetryElsewhere while it is away."""

    async def lane(self, executor: NodeId) -> LaneEntry | None: ...
    async def adopt(self, executor: NodeId, entry: LaneEntry) -> LaneEntry: ...
    async def raise_ceiling(self, ask: Ask) -> Raised: ...
    def keep(self, judged: Judged) -> None:
        """Is not waited for."""


@dataclass(frozen=True, slots=True)
class Wallet:
    """What all lanes of one chain share. `judged(place, accepted)` hears of each receipt."""

    name: str
    identity: Identity
    domain: Domain
    token: bytes
    settings: AccountingSettings
    ledger: Ledger
    judged: Callable[[Place, bool], None]

    def lane(self, number: int) -> Lane:
        """A lane of ours, as executors name it."""
        return Lane(self.identity.address, self.token, number)
