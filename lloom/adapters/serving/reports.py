"""How a till talks with its ledger: which slices are reported when, in how many calls, and what follows from the answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Final

from loguru import logger

from lloom.adapters.serving.desk import Desk
from lloom.adapters.serving.refusals import refusal
from lloom.adapters.serving.shelf import Shelf
from lloom.adapters.serving.slices import Slice
from lloom.core.errors import RetryElsewhere
from lloom.core.messages import Need, wei
from lloom.core.payment.receivable import Ask, Grant
from lloom.core.payment.voucher import MAX_AMOUNT
from lloom.core.settings import AccountingSettings

MAX_CALLS: Final = 64
"""Calls of the ledger at once: a new client's waits for the chain, and must not hold up the others."""
RETRY_SECONDS: Final = 0.5
"""The ledger is back within 1.4 to 2.7 s if it was killed."""
CLOSE_SECONDS: Final = 5.0

_AWAY: Final = frozenset({"restarting", "accounting_away", "accounting_busy", "journal_stuck"})
"""Errors after which the ledger is asked again; others are for whoever waits."""
_FAILED: Final = RetryElsewhere("This executor's ledger failed.", status=500, code="internal")


class Reports:
    """Slices that have something to ask or to say. Its life is `run` in one task, then `close`."""

    def __init__(self, chain: int, desk: Desk, limits: AccountingSettings, shelf: Shelf) -> None:
        """`chain`: its EIP-155 id, for clients that are told what is needed."""
        self._chain = chain
        self._desk = desk
        self._limits = limits
        self._shelf = shelf
        self._due: dict[Slice, None] = {}
        self._some = asyncio.Event()
        self._urgent = asyncio.Event()
        self._calls = asyncio.Semaphore(MAX_CALLS)
        self._number = 0

    def soon(self, slice_: Slice, *, urgent: bool) -> None:
        """Reports a slice at once if somebody waits, else together with others."""
        if slice_.in_flight:  # it is looked at again when it has landed
            return
        self._due[slice_] = None
        self._some.set()
        if urgent:
            self._urgent.set()

    def number(self) -> int:
        """Of the next ask."""
        self._number += 1
        return self._number

    def forget(self, slice_: Slice) -> None:
        """A slice of which nothing is in use has nothing to say."""
        self._shelf.forget(slice_)
        self._due.pop(slice_, None)

    async def run(self) -> None:
        """Talks with the ledger, for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._some.wait()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._limits.report_seconds):
                        await self._urgent.wait()
                for batch in self._take_due():
                    group.create_task(self._report(batch))

    async def close(self, slices: Iterable[Slice]) -> None:
        """Hands in the vouchers of these that the ledger does not have yet."""
        for each in slices:
            each.in_flight = False
            if each.voucher is not None:
                self._due[each] = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await asyncio.gather(*map(self._report, self._take_due()))

    def _take_due(self) -> list[list[Slice]]:
        """What to ask now, in calls: those of lanes that are new may take long, and go alone."""
        due = list(self._due)
        self._due.clear()
        self._some.clear()
        self._urgent.clear()
        for each in due:
            each.in_flight = True
        known = [each for each in due if not each.fresh]
        size = self._limits.batch
        batches = [known[start : start + size] for start in range(0, len(known), size)]
        return batches + [[each] for each in due if each.fresh]

    async def _report(self, batch: Sequence[Slice]) -> None:
        """One call of the ledger."""
        async with self._calls:
            asks = [each.ask(self.number()) for each in batch]
            try:
                grants = await self._desk.lend(asks)
            except RetryElsewhere as error:
                logger.debug("the ledger does not answer: {}", error)
                await self._failed(batch, error)
            except Exception:  # noqa: BLE001 - the boundary of this task: the next call may go well
                logger.exception("the ledger failed")
                await self._failed(batch, _FAILED)
            else:
                for each, ask, grant in zip(batch, asks, grants, strict=True):
                    self._landed(each, ask, grant)

    async def _failed(self, batch: Sequence[Slice], error: RetryElsewhere) -> None:
        if error.code not in _AWAY:
            for each in batch:
                each.refuse(error)
        await asyncio.sleep(RETRY_SECONDS)
        for each in batch:
            each.in_flight = False
            self.soon(each, urgent=each.wanted > 0)

    def _landed(self, slice_: Slice, ask: Ask, grant: Grant) -> None:
        """The ledger has answered."""
        slice_.in_flight = False
        if slice_.voucher is ask.voucher:
            slice_.voucher = None
        self._granted(slice_, grant)
        unheard = any(not each.asked for each in slice_.waiting)
        if slice_.voucher is not None or unheard or (slice_.wanted and not slice_.refused):
            self.soon(slice_, urgent=slice_.wanted > 0)
        elif slice_.idle and (slice_.leaving or not slice_.granted):
            self.forget(slice_)
        slice_.leaving = False

    def _granted(self, slice_: Slice, grant: Grant) -> None:
        slice_.hear(grant)
        slice_.refused = grant.short > 0
        if not slice_.refused:
            return
        helps = grant.reason == "voucher" and grant.needed <= MAX_AMOUNT
        if helps and slice_.open:
            slice_.excuse(refusal(grant))
        else:
            slice_.refuse(refusal(grant))
        if helps:
            lane = slice_.lane
            need = Need(self._chain, lane.token, lane.number, wei(grant.needed))
            for connection in slice_.thirsty:
                connection.send_control(need)
