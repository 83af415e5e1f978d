"""Accounting: numbers, signs and journals receipts, in batches. It never decides what is owed, nor when it is redeemed.

Nothing leaves before it is on the disk, and asking again for the same request gives the very same receipt: callers may repeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from loguru import logger

from lloom.actors.earning import Earning
from lloom.actors.paying import Paying
from lloom.actors.place import Place
from lloom.adapters.journal import allowances, evidence, names, receipts
from lloom.adapters.journal.writer import Writer
from lloom.core.billing.receipt import Draft, sign_receipt
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import SignedReceipt
from lloom.core.parcel import Issued
from lloom.core.payment.domain import domain
from lloom.core.reputation.reputations import Row
from lloom.core.settings import Settings
from lloom.core.visitors import payer


class Accounting(Earning, Paying):
    """One for each chain of a node that pays or is paid, and one for what nobody pays. Until the journal is open, calls wait."""

    def __init__(self, place: Place, chain: str = "") -> None:
        """`chain`: its name in the settings; empty: nobody pays."""
        super().__init__(place)
        self._chain = chain
        self._opened = asyncio.Event()

    async def run(self) -> None:
        """Writes the journal until told to stop. ConfigError if it cannot be used, sqlite3.Error if it fails later."""
        settings = self.place.settings
        identity = payer(await asyncio.to_thread(self.place.identity), settings)
        path = journal_path(settings, self._chain, identity.address)
        writer = Writer(path, settings.accounting)
        try:
            await writer.open()
            self._writer = writer
            self._sign = partial(sign_receipt, identity=identity, domain=domain(settings.chain.get(self._chain)))
            self._opened.set()
            logger.debug("the journal is {}", path)
            works = (
                *self.earning(self._chain, identity, writer, self._sign),
                *self.paying(self._chain, identity, writer),
            )
            if not works:
                self.up("keeps signed receipts of what nobody pays")
            await self._work_on(writer.run(), *works)
        finally:
            self._opened.clear()
            await writer.close()

    async def _work_on(self, *works: Coroutine[Any, Any, None]) -> None:
        """Does `works` until told to stop; raises what one of them raises."""
        tasks = [asyncio.create_task(work) for work in (*works, self._stopped())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stopped(self) -> None:
        await self.stopping.wait()

    async def _ready(self) -> None:
        """Returns once the journal is open; RetryElsewhere if that takes longer than `accounting.ready_seconds`."""
        try:
            async with asyncio.timeout(self.place.settings.accounting.ready_seconds):
                await self._opened.wait()
        except TimeoutError as error:
            raise RetryElsewhere(
                "The journal of receipts is not open yet.", status=503, code="accounting_away", retry_after=1
            ) from error

    async def issue(self, drafts: list[Draft]) -> Issued:
        """The signed receipts of `drafts`, in their order, once they are on the disk. Executor's side.

        RetryElsewhere if the journal is away, stuck or too busy: ask again for the same.
        """
        await self._ready()
        sign = self._sign
        return Issued(await self._writer.write(lambda db: receipts.issue(db, drafts, sign), len(drafts)))

    async def keep(self, items: list[tuple[NodeId, SignedReceipt]]) -> None:
        """Stores checked receipts by the executor that gave them. Client's side; errors as for `issue`."""
        await self._ready()
        await self._writer.write(lambda db: receipts.keep(db, items), len(items))

    async def learn(self, models: list[str]) -> None:
        """Notes models by name: receipts hold hashes. Errors as for `issue`."""
        await self._ready()
        await self._writer.write(lambda db: names.learn(db, models), len(models))

    async def note(self, rows: list[allowances.Row]) -> None:
        """Stores what keys of the gateway have used; totals, so they may come twice. Client's side; errors as for `issue`."""
        await self._ready()
        await self._writer.write(lambda db: allowances.note(db, rows), len(rows))

    async def noted(self) -> list[allowances.Row]:
        """What `note` was told. Errors as for `issue`."""
        await self._ready()
        return await self._writer.write(allowances.known, 1)

    async def keep_evidence(self, rows: list[Row]) -> None:
        """Stores what was seen of executors; totals, so they may come twice. Client's side; errors as for `issue`."""
        await self._ready()
        await self._writer.write(lambda db: evidence.keep(db, rows), len(rows))

    async def recall_evidence(self) -> list[Row]:
        """What `keep_evidence` was told. Errors as for `issue`."""
        await self._ready()
        return await self._writer.write(evidence.known, 1)


def journal_path(settings: Settings, chain: str, owner: NodeId) -> Path:
    """Where the journal of `owner` on a chain is (empty: none): numbering is one for all networks, as signatures are."""
    name = f"ledger-{chain or 'off'}-{checksum(owner)}.sqlite"
    return Path(settings.home).expanduser() / settings.role / name
