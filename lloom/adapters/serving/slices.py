"""What a Worker may spend of one lane, and who waits for more: state only. The till moves it."""

from __future__ import annotations

import asyncio
from collections import deque
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lloom.core.billing.lane import Lane
from lloom.core.errors import RetryElsewhere
from lloom.core.payment.receivable import Ask, Grant
from lloom.core.payment.voucher import CheckedVoucher

if TYPE_CHECKING:
    from lloom.adapters.bridge import Connection
    from lloom.adapters.serving.tab import Tab


@dataclass(slots=True, eq=False)
class Waiting:
    """A request that has not begun, for want of `amount`."""

    amount: int
    connection: Connection
    done: asyncio.Future[None]
    asked: bool = False
    """Whether the ledger was asked on its behalf."""
    excuse: RetryElsewhere | None = None
    """Why the ledger had nothing for it, though it may have soon."""


@dataclass(slots=True, eq=False)
class Slice:
    """Totals as in `receivable.Lease`, as this Worker knows them. What is drawn by requests that run is `open`."""

    lane: Lane
    used_at: float
    granted: int = 0
    spent: int = 0
    open: int = 0
    unbilled: int = 0
    """Requests whose receipts are not issued yet."""
    asked: int = 0
    """What was missing to those on whose behalf the ledger was asked last."""
    most: int | None = None
    """All that the answer under way may grant: the rest was given back since it was asked for."""
    unsure: bool = False
    """The ledger may have granted more than is spent here: an answer came that a recall had overtaken."""
    fresh: bool = True
    """The ledger was not heard yet."""
    in_flight: bool = False
    leaving: bool = False
    """It is being given back."""
    best: tuple[int, int] = (-1, -1)
    """Amount and requests of the best voucher that came."""
    voucher: CheckedVoucher | None = None
    """The same, as long as the ledger does not have it."""
    waiting: deque[Waiting] = field(default_factory=deque)
    short: dict[Tab, int] = field(default_factory=dict)
    """Answers that soon need, or do need, so much more."""
    refused: bool = False
    """The ledger has no more for them, until a voucher comes."""

    @property
    def free(self) -> int:
        """What can be drawn; below zero if answers became dearer than what was drawn for them."""
        return self.granted - self.used

    @property
    def used(self) -> int:
        """What is gone, or may be gone any moment."""
        return self.spent + self.open

    @property
    def wanted(self) -> int:
        """What is missing to all who wait."""
        return sum(each.amount for each in self.waiting) + sum(self.short.values())

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost with it."""
        return not (self.open or self.unbilled or self.waiting or self.in_flight or self.voucher)

    def ask(self, number: int) -> Ask:
        """What to ask the ledger for now."""
        self.asked, self.most, self.unsure = self.wanted, None, False
        for each in self.waiting:
            each.asked = True
        if self.leaving:
            self.granted = self.used
        return Ask(
            lane=self.lane,
            number=number,
            used=self.used,
            least=self.wanted,
            fresh=self.fresh,
            back=self.leaving,
            voucher=self.voucher,
        )

    def give_back(self, number: int) -> Ask | None:
        """Stops spending what nobody has drawn, and what an answer under way may bring beyond what is waited for. None: that is
        nothing, and so nobody who asks for it makes this Worker ask again."""
        if self.free <= 0 and not (self.in_flight or self.unsure):
            return None
        kept = min(self.wanted, self.asked) if self.in_flight and self.free <= 0 else 0
        self.unsure = False
        if self.in_flight:
            self.most = self.used + kept if self.most is None else min(self.most, self.used + kept)
        self.granted = min(self.granted, self.used)
        return Ask(lane=self.lane, number=number, used=self.used, least=kept, fresh=self.fresh, back=True)

    def hear(self, grant: Grant) -> None:
        """The answer to the latest ask came."""
        if self.fresh:
            self.fresh, self.spent = False, grant.spent
            most = None if self.most is None else self.most + grant.spent
        else:
            most = self.most
        self.granted = grant.granted if most is None else min(grant.granted, most)
        self.unsure = self.granted < grant.granted
        self.serve()

    def serve(self) -> None:
        """Hands out what there is: to answers that run, then to those whose turn it is to begin."""
        for tab, wanted in list(self.short.items()):
            got = max(0, min(wanted, self.free))
            self.open += got
            self.short[tab] -= got
            if not self.short[tab]:
                del self.short[tab]
            tab.gain(got)
        while not self.short and self.waiting and self.waiting[0].amount <= self.free:
            first = self.waiting.popleft()
            if not first.done.done():  # else it has given up
                self.open += first.amount
                first.done.set_result(None)

    @property
    def thirsty(self) -> set[Connection]:
        """Whose answers, or requests, wait for money."""
        return {tab.connection for tab in self.short} | {each.connection for each in self.waiting}

    def excuse(self, error: RetryElsewhere) -> None:
        """Has those wait on that the ledger was asked for: answers that run may have drawn what their voucher promised."""
        for each in self.waiting:
            if each.asked:
                each.excuse = error

    def refuse(self, error: RetryElsewhere) -> None:
        """Sends those away on whose behalf the ledger was asked."""
        for each in [each for each in self.waiting if each.asked]:
            self.waiting.remove(each)
            if not each.done.done():
                each.done.set_exception(copy(error))
