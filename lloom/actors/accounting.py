"""Accounting: numbers, signs and journals receipts, in batches. It never decides what is owed, and settles nothing yet.

Nothing leaves before it is on the disk, and asking again for the same request gives the very same receipt: callers may repeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

from loguru import logger

from lloom.adapters.writer import Writer
from lloom.core.eip712 import Domain
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity, NodeId, checksum
from lloom.core.messages import SignedReceipt
from lloom.core.receipt import Draft, sign_receipt
from lloom.core.settings import Settings


class Accounting:
    """One for each node that pays or is paid. Until `serve` has opened the journal, calls wait."""

    def __init__(self, settings: Settings, network: str, open_identity: Callable[[], Identity]) -> None:
        self._settings = settings
        self._network = network
        self._open_identity = open_identity
        self._opened = asyncio.Event()

    async def serve(self) -> None:
        """Opens the journal and writes it until cancelled. ConfigError if it cannot be used, sqlite3.Error if it fails later."""
        identity = await asyncio.to_thread(self._open_identity)
        path = journal_path(self._settings, identity.address)
        writer = Writer(path, self._settings.accounting)
        try:
            await writer.open()
            self._writer = writer
            self._sign = partial(sign_receipt, identity=identity, domain=Domain())
            self._opened.set()
            logger.info(
                "Receipts of {} on {} are signed and kept in {}; no chain is configured, so nothing is settled.",
                checksum(identity.address),
                self._network,
                path,
            )
            await writer.run()
        finally:
            self._opened.clear()
            await writer.close()

    async def ready(self) -> None:
        """Returns once the journal is open; RetryElsewhere if that takes longer than `accounting.ready_seconds`."""
        try:
            async with asyncio.timeout(self._settings.accounting.ready_seconds):
                await self._opened.wait()
        except TimeoutError as error:
            raise RetryElsewhere(
                "The journal of receipts is not open yet.", status=503, code="accounting_away", retry_after=1
            ) from error

    async def issue(self, drafts: list[Draft]) -> list[SignedReceipt]:
        """The signed receipts of `drafts`, in their order, once they are on the disk. Executor's side.

        RetryElsewhere if the journal is away, stuck or too busy: ask again for the same.
        """
        await self.ready()
        sign = self._sign
        return await self._writer.write(lambda journal: journal.issue(drafts, sign), len(drafts))

    async def keep(self, items: list[tuple[NodeId, SignedReceipt]]) -> None:
        """Stores checked receipts by the executor that gave them. Client's side; errors as for `issue`."""
        await self.ready()
        await self._writer.write(lambda journal: journal.keep(items), len(items))


def journal_path(settings: Settings, owner: NodeId) -> Path:
    """Where the receipts of `owner` on the configured chain are: numbering is one for all networks, as signatures are."""
    name = f"receipts-{settings.chain.name}-{checksum(owner)}.sqlite"
    return Path(settings.home).expanduser() / settings.role / name
