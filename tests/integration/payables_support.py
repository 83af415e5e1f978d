"""A client's journal, receipts of a lane, and a contract in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lloom.adapters.journal.writer import Writer
from lloom.adapters.payment.payables import Payables
from lloom.core.billing.receipt import Receipt, Status, sign_receipt
from lloom.core.eip712 import Domain
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity
from lloom.core.payment.funds import Funds, LaneFunds
from lloom.core.payment.payable import Judged
from lloom.core.settings import PrepaySettings
from tests.money_support import accounting

CLIENT = Identity(bytes(31) + b"\x01")
EXECUTOR = Identity(bytes(31) + b"\x02")
OTHER = Identity(bytes(31) + b"\x03")
TOKEN = bytes(20)
DOMAIN = Domain(31337, b"\xc0" * 20)
MODEL = hashlib.sha256(b"model").digest()
PREPAY = PrepaySettings(per_executor=10_000, newcomers=20_000, ahead=1.0)
SETTINGS = accounting(prepay=PREPAY, budget=100_000, batch_seconds=0.001, report_seconds=0.001)


@dataclass
class FakeContract:
    """What a chain would say; `away`: nobody answers."""

    available: int = 1_000_000
    claimed: dict[bytes, int] = field(default_factory=dict)
    away: bool = False
    asked: int = 0

    async def funds(self, client: bytes, token: bytes) -> Funds:
        self.asked += 1
        if self.away:
            raise RetryElsewhere("no server of the chain answers", code="chain_away")
        return Funds(self.available, 0, 0)

    async def lane(self, client: bytes, executor: bytes, token: bytes, number: int) -> LaneFunds:
        return LaneFunds(self.claimed.get(executor, 0), 0, 0)


def receipt(seq: int, cost: int = 100, charged: int | None = None, request: bytes | None = None) -> Receipt:
    digest = hashlib.sha256(b"request %d" % seq).digest() if request is None else request
    total = seq * cost if charged is None else charged
    return Receipt(digest, MODEL, bytes(32), 9, 3, 1, 2, cost, seq, total, 1, 2, Status.COMPLETE)


def judged(seq: int, problem: str = "", executor: Identity = EXECUTOR, **changes: Any) -> Judged:
    made = receipt(seq, **changes)
    left_out = (seq,) if problem else ()
    signed = sign_receipt(made, executor, DOMAIN)
    return Judged(executor.address, 0, signed, problem, seq, made.lane_charged, left_out)


@asynccontextmanager
async def opened(path: Path, contract: FakeContract | None = None, **changes: Any) -> AsyncIterator[Payables]:
    """A client's part of an accounting actor, over the journal at `path`."""
    settings = accounting(**{"prepay": PREPAY, "budget": 100_000, "batch_seconds": 0.001, **changes})
    writer = Writer(path, settings)
    await writer.open()
    writing = asyncio.create_task(writer.run())
    payables = Payables(CLIENT.address, TOKEN, writer, settings)
    payables.contract = FakeContract() if contract is None else contract
    try:
        yield payables
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await writer.close()
