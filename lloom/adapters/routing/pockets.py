"""What orders cost the keys that they are for, and who is told of it. It lets nobody in, and pays nobody."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from lloom.core.pocket import Coin, Lack, Pocket


class Bill:
    """One order that costs `pocket` no more than `held`, until it is settled, once. `spent`: see Pockets."""

    __slots__ = ("_coin", "_held", "_pocket", "_settled", "_spent")

    def __init__(self, pocket: Pocket, coin: Coin, held: int, spent: Callable[[str, str, int, int], None]) -> None:
        self._pocket = pocket
        self._coin = coin
        self._held = held
        self._spent = spent
        self._settled = False

    def lower(self, most: int) -> None:
        """No more than `most` can be charged any more."""
        if not self._settled and most < self._held:
            self._pocket.lower(self._coin, self._held - most)
            self._held = most

    def settle(self, cost: int) -> None:
        """It came to `cost`. What is heard of later changes nothing: the journal's totals only grow."""
        if self._settled:
            return
        self._settled = True
        day, total = self._pocket.settle(self._coin, self._held, cost, time.time())
        if cost:
            self._spent(self._pocket.name, self._coin.unit, day, total)


class Pockets:
    """Those of all keys. `spent` is told a key's name, a coin's unit, a day (since 1970, UTC), and all
    that the key has spent of it on that day, in smallest units."""

    def __init__(self, pockets: Iterable[Pocket], spent: Callable[[str, str, int, int], None]) -> None:
        self._pockets = {pocket.name: pocket for pocket in pockets}
        self._spent = spent

    def __contains__(self, caller: str) -> bool:
        """Whether there is a key called `caller`."""
        return caller in self._pockets

    def lack(self, caller: str, coin: Coin, amount: int) -> Lack | None:
        """Why the key called `caller` cannot spend `amount` now; None if it can."""
        return self._pockets[caller].lack(coin, amount, time.time())

    def hold(self, caller: str, coin: Coin, most: int) -> Bill | None:
        """The bill of an order that may cost `most`, for the key called `caller`; None if it is for none.

        Errors as of `Pocket.hold`.
        """
        pocket = self._pockets.get(caller)
        if pocket is None:
            return None
        pocket.hold(coin, most, time.time())
        return Bill(pocket, coin, most, self._spent)


NOBODYS = Pockets((), lambda *_: None)
"""Where there are no keys."""
