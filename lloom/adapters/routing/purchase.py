"""One paid request at one executor: what has arrived of its answer, what may be charged for it. It signs and journals nothing."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from lloom.adapters.routing.pockets import Bill
from lloom.core import tokens
from lloom.core.billing.quote import cost
from lloom.core.billing.receipt import Receipt, Status
from lloom.core.metering import KEPT_BYTES
from lloom.core.order import Order
from lloom.core.payment.counting import LONG, Tally, accepted, known
from lloom.core.routing.outcomes import Place
from lloom.core.settings import AccountingSettings

LONG_BYTES: Final = 16 * 1024
"""Longer answers are counted in a thread: about 80 tokens as they travel, or text that takes a few milliseconds."""


class Tab:
    """What attempts at one prompt have cost so far, by the domain and token that it was paid in: all of them share a ceiling."""

    def __init__(self) -> None:
        self.prompts: dict[str, int] = {}
        """Tokens of the prompt by encoding: it is counted once."""
        self.spent: defaultdict[tuple[int, bytes, bytes], int] = defaultdict(int)


class Purchase:
    """Made when a request is ordered. Its answer is fed to it; `over` ends that, and then its receipt can be judged."""

    def __init__(self, order: Order, place: Place, encoding: str, tab: Tab, settings: AccountingSettings) -> None:
        self.order = order
        self.place = place
        self.tally = Tally(order.call.operation, encoding)
        self.window = order.quote.min_window
        """What is granted ahead of the answer."""
        self.look: Callable[[int], bytes] = _nothing
        """What has arrived after so many bytes and was not read."""
        self.ended = False
        """Nothing more of the answer arrives."""
        self.lost = False
        """The connection broke: the executor may believe that it delivered more than what arrived."""
        self.void = False
        """The executor failed before it said anything: it may not charge for that."""
        self.bill: Bill | None = None
        """Whose money it costs; None: the owner's of this node."""
        self._encoding = known(encoding)
        self._tab = tab
        self._settings = settings
        self._counted: int | None = None
        self._counting: asyncio.Task[None] | None = None

    @property
    def draw(self) -> int:
        """What it may cost before anything has arrived."""
        request = self.order.request
        return min(cost(self.order.quote, request.max_input_tokens, 0, 0) + self.window, request.max_cost)

    @property
    def counted(self) -> bool:
        """Whether the answer is over and counted."""
        return self._counted is not None

    @property
    def paid_in(self) -> tuple[int, bytes, bytes]:
        """Chain, contract and token."""
        return self.order.domain.chain_id, self.order.domain.contract, self.order.quote.token

    def allowance(self) -> int:
        """What it may cost by now, with a window ahead of what has arrived."""
        if not self.ended:
            self.tally.feed(self.tally.fed, self.look(self.tally.fed))
        due = self._due(self.tally.so_far() if self._counted is None else self._counted)
        return max(self.draw, min(due + self.window, self.order.request.max_cost))

    def worth(self) -> int:
        """What has arrived costs by our own count, no tolerance. Only when `counted`."""
        assert self._counted is not None
        request, quote = self.order.request, self.order.quote
        inputs = min(self._tab.prompts.get(self._encoding, 0), request.max_input_tokens)
        return min(cost(quote, inputs, 0, min(self._counted, request.max_output_tokens)), request.max_cost)

    def over(self, counted: Callable[[], None], said: str | None = None) -> None:
        """Nothing more arrives; `counted` is called once it is known how much it was: at once, or soon. `said`: all that the
        answer says, if somebody has that already: then its events are not read again.
        """
        self.ended, self.look = True, _nothing
        if said is not None and len(said) <= LONG and self.tally.fed <= KEPT_BYTES:  # beyond these, bytes count as well
            self._know(tokens.count(said, self._encoding))
            counted()
        elif self.tally.fed <= LONG_BYTES:
            self._know(self.tally.total())
            counted()
        else:
            self._counting = asyncio.get_running_loop().create_task(self._count(counted))

    def problem(self, receipt: Receipt) -> str | None:
        """What in a receipt, that agrees with the order, is not what we count; None if nothing is. Only when `counted`."""
        assert self._counted is not None
        if receipt.status == Status.FAILED:
            return None
        if receipt.response_bytes == 0 and receipt.cost:
            return "a charge for an answer that never came"
        if self.void and receipt.cost:
            return "a charge for an answer that failed before it said anything"
        most = self._most(self._counted)
        if receipt.output_tokens > most:
            return f"{receipt.output_tokens} output tokens where {self._counted} are counted, and {most} accepted"
        return None

    def pay(self, receipt: Receipt) -> None:
        """The receipt is accepted: later attempts of the same request may cost so much less, if anything was said for it.

        Else whoever begins, says nothing and is given up could take from the others what their prompts cost.
        """
        if self._counted or self.order.call.operation == "embeddings":
            self._tab.spent[self.paid_in] += receipt.cost
        self._settle(receipt.cost)

    def unbilled(self) -> None:
        """No receipt of it is accepted: who asked for it had what has arrived, and that may be taken from what was granted."""
        self._settle(self._had())

    def _had(self) -> int:
        if self.void:
            return 0
        return self.worth() if self.counted else self.allowance() if self.tally.fed else 0

    def _settle(self, cost: int) -> None:
        if self.bill is not None:
            self.bill.settle(cost)

    def _most(self, count: int) -> int:
        return accepted(count, self.order.quote.basis, self._settings)

    def _know(self, count: int) -> None:
        """The answer has `count` tokens, and is not kept longer than needed."""
        self._counted = count
        self.tally.forget()
        if self.bill is not None:
            self.bill.lower(min(self._due(count), self.order.request.max_cost))

    def _due(self, count: int) -> int:
        """The most that may be charged for so many tokens of our own count."""
        request = self.order.request
        outputs = min(self._most(count), request.max_output_tokens)
        return cost(self.order.quote, request.max_input_tokens, 0, outputs)

    async def _count(self, counted: Callable[[], None]) -> None:
        self._know(await asyncio.to_thread(self.tally.total))
        counted()


def _nothing(_seen: int) -> bytes:
    return b""
