"""Money that one key of the gateway may spend, of each token that is paid in. It converts nothing and never reads a clock.

What is set aside for an order is the most that may be charged for it, so no budget is exceeded, not even for a moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lloom.core.allowance import MONTH, Budget
from lloom.core.errors import RetryElsewhere
from lloom.core.settings import GatewayKey


@dataclass(frozen=True, slots=True)
class Coin:
    """A token on a chain; amounts of one are worth nothing in another. `chain`: its name in the settings."""

    unit: str
    """What its amounts are journaled under."""
    chain: str


@dataclass(frozen=True, slots=True)
class Lack:
    """The limit `name` that has no room for an amount. `seconds`: until it has; None: no time helps."""

    name: str
    limit: int
    seconds: float | None


class Pocket:
    """The money of the key `name`. `spent`: by `Coin.unit`, then by the day (since 1970, UTC), in smallest units."""

    def __init__(self, name: str, terms: GatewayKey, spent: Mapping[str, Mapping[int, int]]) -> None:
        self.name = name
        limits = (("money_per_day", terms.money_per_day, 1), ("money_per_month", terms.money_per_month, MONTH))
        self._limits = [(name, limit, days) for name, limit, days in limits if limit is not None]
        self._budgets = {unit: Budget(days) for unit, days in spent.items()}

    def lack(self, coin: Coin, amount: int, wall: float) -> Lack | None:
        """Why `amount` cannot be set aside; None if it can. `wall`: Unix seconds."""
        budget = self._budget(coin)
        for name, limit, days in self._limits:
            if amount > limit:
                return Lack(name, limit, None)
            if wait := budget.wait(amount, limit, days, wall):
                return Lack(name, limit, wait)
        return None

    def hold(self, coin: Coin, amount: int, wall: float) -> None:
        """Sets `amount` aside, until `settle`. RetryElsewhere (429 `insufficient_quota`) if it is not there: who costs less,
        or nothing, may still be asked."""
        lack = self.lack(coin, amount, wall)
        if lack is not None:
            raise _refusal(lack, coin, amount)
        self._budget(coin).reserve(amount)

    def lower(self, coin: Coin, amount: int) -> None:
        """So much less needs to be set aside."""
        self._budget(coin).reserve(-amount)

    def settle(self, coin: Coin, held: int, cost: int, wall: float) -> tuple[int, int]:
        """What was held came to `cost`; today (days since 1970), and all that was spent on it: for the journal."""
        return self._budget(coin).settle(held, cost, wall)

    def _budget(self, coin: Coin) -> Budget:
        return self._budgets.setdefault(coin.unit, Budget({}))


def _refusal(lack: Lack, coin: Coin, amount: int) -> RetryElsewhere:
    days = "a day" if lack.name == "money_per_day" else f"{MONTH} days"
    text = (
        f"This key may spend {lack.limit} smallest units on {coin.chain} in {days} ({lack.name}), and this request, which may "
        f"cost {amount}, does not fit into what is left of them."
    )
    if lack.seconds is None:
        text = f"{text} It never will: limit the answer's tokens."
    return RetryElsewhere(text, status=429, code="insufficient_quota", retry_after=lack.seconds)
