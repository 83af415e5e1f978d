"""When an executor redeems vouchers: worth what that costs, before too much is owed, at once on bad news. It sends none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from msgspec import Struct

from lloom.core.billing.lane import Lane
from lloom.core.billing.quote import PRICE_UNIT
from lloom.core.payment.fees import Prices
from lloom.core.payment.receivable import Means, Receivable
from lloom.core.settings import Chain, SettlementSettings

T = TypeVar("T")

BATCH_GAS: Final = 45_000
"""Gas of a settlement besides its lanes (contracts/, gas snapshot; rounded up, as all of these)."""
LANE_GAS: Final = 47_000
"""Of one lane, with the usage of one model."""
MODEL_GAS: Final = 16_000
"""Of each further model."""
FIRST_GAS: Final = 100_000
"""Of a lane that nothing was paid on yet."""
BATCH_BYTES: Final = 132
"""Of a settlement's calldata besides its lanes (ABI, exact)."""
LANE_BYTES: Final = 480
"""Of one lane, with the usage of one model."""
MODEL_BYTES: Final = 128
"""Of each further model."""
NEW_MODEL_GAS: Final = 42_000
"""Beside that, of each model whose usage was never counted on the lane, nor elsewhere."""
MAX_CLAIMS: Final = 100
"""Of one settlement."""
MAX_GAS: Final = 12_000_000
"""Of one settlement, with the margin of estimates: no transaction may have more than 2^24 (EIP-7825), and one that is refused
for that would hold up its lanes for ever."""


class Due(Struct, frozen=True, kw_only=True):
    """A lane of which something can be redeemed."""

    state: Receivable
    since: float
    """Unix seconds since when."""
    models: int = 1
    """Whose usage the voucher carries."""
    available: int = 0
    """What its client has on chain that is not reserved."""
    urgent: bool = False
    """The client takes its money away, or may."""

    @property
    def lane(self) -> Lane:
        """Which it is."""
        return self.state.lane

    @property
    def amount(self) -> int:
        """What a settlement would bring now."""
        return max(0, min(self.state.redeemable - self.state.claimed, self.state.reserved + self.available))

    @property
    def gas(self) -> int:
        """What it adds to a settlement."""
        return LANE_GAS + MODEL_GAS * max(0, self.models - 1) + FIRST_GAS * (not self.state.claimed)

    @property
    def most(self) -> int:
        """The same where all its models are new."""
        return self.gas + NEW_MODEL_GAS * self.models

    @property
    def size(self) -> int:
        """What it adds to a settlement's calldata, in bytes."""
        return LANE_BYTES + MODEL_BYTES * max(0, self.models - 1)


class Policy(Struct, frozen=True):
    """What redeeming depends on beside what is due."""

    limits: SettlementSettings
    chain: Chain
    prices: Prices

    def price(self, gas: int, size: int) -> int:
        """So much gas and so many bytes of calldata, in smallest units of the token."""
        return self._worth(gas * self.prices.gas + size * self.prices.byte)

    def threshold(self, available: int) -> int:
        """θ: what a client with so much on chain owes when it is redeemed. Gas counts as what would be paid for it at most:
        clients are relied on for more where it is dear, and a server could say any price.
        """
        share = int(available * self.limits.share)
        gas = min(self.prices.gas, self.chain.max_fee)
        one = self._worth((BATCH_GAS + LANE_GAS) * gas + (BATCH_BYTES + LANE_BYTES) * self.prices.byte)
        return max(self.limits.gas_multiple * one, min(self.chain.settle_above, share))

    def means(self, available: int) -> Means:
        """What of a client's money is relied on: no more than two thresholds before it is paid and final."""
        return Means(available, 2 * self.threshold(available))

    def _worth(self, coin: int) -> int:
        """Smallest units of the coin in those of the token, rounded up."""
        return -(-coin * self.chain.gas_rate // PRICE_UNIT)


def batches(dues: Iterable[Due], policy: Policy, now: float) -> list[list[Lane]]:
    """The lanes to be redeemed now (Unix seconds), as `fitting` parts them, the most urgent and largest first."""
    worth = [due for due in dues if due.amount > policy.price(due.gas, due.size)]
    by_client: defaultdict[bytes, list[Due]] = defaultdict(list)
    for due in worth:
        by_client[due.lane.client].append(due)
    ripe = [due for lanes in by_client.values() if _ripe(lanes, policy, now) for due in lanes]
    ripe.sort(key=lambda due: (due.urgent, due.amount), reverse=True)
    return fitting((due.lane, due.most) for due in ripe)


def fitting(wanted: Iterable[tuple[T, int]]) -> list[list[T]]:
    """`wanted`, each with its gas, in their order: as many together as `MAX_CLAIMS` and `MAX_GAS` allow, and at least one."""
    found: list[list[T]] = []
    left = 0
    for each, gas in wanted:
        if not found or gas > left or len(found[-1]) >= MAX_CLAIMS:
            found.append([])
            left = MAX_GAS - BATCH_GAS
        found[-1].append(each)
        left -= gas
    return found


def _ripe(lanes: Sequence[Due], policy: Policy, now: float) -> bool:
    """Whether it is time for a client's lanes, each of which is worth its own gas and bytes."""
    owed = sum(due.amount for due in lanes)
    if any(due.urgent for due in lanes) or owed >= policy.threshold(lanes[0].available):
        return True
    alone = policy.price(BATCH_GAS + sum(due.gas for due in lanes), BATCH_BYTES + sum(due.size for due in lanes))
    return owed > alone and any(not 0 <= now - due.since < policy.limits.age_seconds for due in lanes)
