"""What one paid request has drawn of its lane, and may cost by now. It waits for nobody but its till."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from lloom.adapters.bridge import Connection
from lloom.core.billing.quote import Quote, cost
from lloom.core.billing.request import Request
from lloom.core.errors import RetryElsewhere

if TYPE_CHECKING:
    from lloom.adapters.serving.slices import Slice
    from lloom.adapters.serving.till import Till

GRACE: Final = 8
"""Windows that a client may say were lost under way when it cancelled or was cut off: seconds of an answer, now and then."""
AGAIN_SECONDS: Final = 1.0
"""How often the ledger is asked again for an answer that waits: other Workers give back, deposits come."""


class Unpaid(RetryElsewhere):
    """Raised when an answer is ended in the middle: its client does not pay for more."""

    def __init__(self) -> None:
        message = "The answer was ended: what was paid for is used up, and no voucher for more came."
        super().__init__(message, status=402, code="payment_required")


class Price(Struct, frozen=True):
    """What a request costs: by its quote, with `inputs` tokens in its prompt, and at most `ceiling`."""

    quote: Quote
    inputs: int
    ceiling: int

    @classmethod
    def of(cls, quote: Quote, request: Request, prompt: int) -> Price:
        """By the executor's own count of the prompt, and what was ordered. RetryElsewhere (402) if that may not cost so much."""
        inputs = min(prompt, request.max_input_tokens)
        ceiling = cost(quote, inputs, 0, request.max_output_tokens)
        if ceiling > request.max_cost:
            raise RetryElsewhere(
                f"The request allows {request.max_cost} and may cost {ceiling}, in smallest units of its token.",
                status=402,
                code="payment_required",
            )
        return cls(quote, inputs, ceiling)

    def at(self, outputs: int) -> int:
        """With so many tokens in its answer."""
        return min(self.ceiling, cost(self.quote, self.inputs, 0, outputs))

    @property
    def first(self) -> int:
        """What is drawn before it begins."""
        return min(self.ceiling, self.at(0) + self.quote.min_window)


class Tab:
    """One request that is being answered. `covers` draws more ahead of need; `close` gives back what is left."""

    def __init__(self, till: Till, slice_: Slice, connection: Connection, price: Price, prompt: int) -> None:
        """`price.first` is drawn already; `prompt`: tokens of the whole prompt, as counted here."""
        self.prompt = prompt
        self.connection = connection
        self._till = till
        self._slice = slice_
        self._price = price
        self._drawn = price.first
        self._woken: asyncio.Event | None = None
        """Set once there is news for who waits; None before anybody does."""
        self._closed = False

    @property
    def whole(self) -> bool:
        """Whether all is drawn that it may cost, so that nobody has to count."""
        return self._drawn >= self._price.ceiling

    def covers(self, outputs: int, most: int = 0) -> bool:
        """Whether so many tokens of the answer may be sent, and even `most`, if that is more. It draws ahead of `outputs`, and
        never waits.
        """
        price, window = self._price, self._price.quote.min_window
        most_owed = price.at(max(outputs, most))
        if self.whole or self._drawn - most_owed > window // 2:
            return True
        owed = price.at(outputs)
        if self._drawn - owed <= window // 2:
            wanted = min(max(0, owed - self._drawn) + window, price.ceiling - self._drawn)
            self._drawn += self._till.more(self, self._slice, wanted)
        return self._drawn >= most_owed

    async def credit(self, outputs: int) -> None:
        """Returns once so many tokens are covered; `Unpaid` if that takes too long."""
        if self.covers(outputs):
            return
        try:
            async with asyncio.timeout(self._till.credit_seconds):
                while not self.covers(outputs):
                    await self._news()
        except TimeoutError:
            raise Unpaid from None

    def forgives(self, sent: int, billed: int | None = None) -> bool:
        """Whether the client is not charged for the tokens that were `sent` but for those that are `billed`, if it is at all."""
        lost = self._price.at(sent) - (0 if billed is None else self._price.at(billed))
        return self._till.forgive(self._slice.lane.client, lost, GRACE * self._price.quote.min_window)

    def gain(self, amount: int) -> None:
        """The till has drawn more for it."""
        self._drawn += amount
        if self._woken is not None:
            self._woken.set()

    def close(self, billed: int | None = None) -> None:
        """The request is over; `billed`: its receipt will charge so much. Idempotent: the first time counts."""
        if not self._closed:
            self._closed = True
            self._till.settle(self, self._slice, self._drawn, billed)

    async def _news(self) -> None:
        self._woken = asyncio.Event()
        try:
            async with asyncio.timeout(AGAIN_SECONDS):
                await self._woken.wait()
        except TimeoutError:
            self._till.insist(self._slice)
