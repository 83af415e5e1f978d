"""How far a lane may be signed for: raised ahead of need, so that hardly anybody waits for a disk. It signs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from loguru import logger

from lloom.adapters.routing.wallet import Wallet
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId
from lloom.core.payment.payable import Payable
from lloom.core.payment.promises import Ask, Raised

SHARE: Final = 4
"""A ceiling is raised by this part of `prepay.per_executor` beyond what is needed now, so that it need not be soon again."""
PAUSE_SECONDS: Final = 0.1
"""After a raise in vain, before the next one that nobody waits for."""


class Ceiling:
    """`waiting`: what requests need that wait for room now. `risen` is called after each raise that was of use."""

    def __init__(self, executor: NodeId, payable: Payable, wallet: Wallet, risen: Callable[[], None]) -> None:
        self.waiting = 0
        self._executor = executor
        self._payable = payable
        self._wallet = wallet
        self._risen = risen
        self._raising: asyncio.Task[Raised] | None = None
        self._again = 0.0
        self._loop = asyncio.get_running_loop()

    async def room(self, reach: int) -> None:
        """Returns when the ceiling may have changed; RetryElsewhere (402) if it cannot be as high as `reach`."""
        raising = self._raising
        if raising is not None:
            await asyncio.wait({raising})
            return
        raised = await asyncio.shield(self._raise(reach))
        if raised.code and raised.ceiling < reach:
            raise RetryElsewhere(raised.problem, status=402, code=raised.code)

    def raise_soon(self, least: int) -> None:
        """Has the ceiling raised to `least`, behind whatever goes on; not if that was in vain a moment ago."""
        if self._raising is None and self._loop.time() >= self._again:
            self._raise(least)

    def raise_ahead(self) -> None:
        """Has it raised before it is reached."""
        payable, prepay = self._payable, self._wallet.settings.prepay
        left = payable.ceiling - payable.signed
        if payable.accepted and 2 * SHARE * left < prepay.per_executor and payable.ceiling < payable.limit(prepay):
            self.raise_soon(payable.ceiling)

    def _raise(self, least: int) -> asyncio.Task[Raised]:
        """To `least` or, if possible, by so much more that it is not asked for soon again."""
        prepay = self._wallet.settings.prepay
        ahead = prepay.per_executor // SHARE if self._payable.accepted else 0
        best = min(least + self.waiting + ahead, self._payable.limit(prepay))
        ask = Ask(self._executor, self._payable.number, least, max(least, best))
        self._raising = self._loop.create_task(self._ask(ask))
        self._raising.add_done_callback(self._raised)
        return self._raising

    async def _ask(self, ask: Ask) -> Raised:
        try:
            raised = await self._wallet.ledger.raise_ceiling(ask)
        finally:
            self._raising = None
        if raised.ceiling <= self._payable.ceiling:
            self._again = self._loop.time() + PAUSE_SECONDS
        self._payable.raised(raised.ceiling)
        return raised

    def _raised(self, done: asyncio.Task[Raised]) -> None:
        if done.cancelled():
            return
        if (error := done.exception()) is not None:
            logger.debug("a ceiling could not be raised: {}", error)
            self._again = self._loop.time() + PAUSE_SECONDS
        elif not done.result().code:
            self._risen()
