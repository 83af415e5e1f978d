"""A chain that answers as told, and the executor's ledger over a real journal. Also for tests that are killed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from lloom.adapters.journal.writer import Writer
from lloom.adapters.payment.receivables import Receivables
from lloom.adapters.payment.settling import Settling
from lloom.adapters.payment.treasury import Treasury
from lloom.core.billing.lane import Lane
from lloom.core.billing.receipt import Draft, Status, sign_receipt
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity, NodeId
from lloom.core.messages import Usage
from lloom.core.payment import voucher
from lloom.core.payment.domain import domain
from lloom.core.payment.fees import Prices
from lloom.core.payment.funds import Funds, LaneFunds
from lloom.core.payment.receivable import Ask, Grant, Holder
from lloom.core.payment.voucher import CheckedVoucher, Claim, Voucher
from tests.money_support import accounting, chain

CHAIN = chain()
DOMAIN = domain(CHAIN)
EXECUTOR = Identity(bytes(31) + b"\x02")
CLIENT = Identity(bytes(31) + b"\x01")
TOKEN = bytes(20)
LANE = Lane(CLIENT.address, TOKEN, 0)
A, B = Holder("executor-worker-0", b"a" * 16), Holder("executor-worker-1", b"b" * 16)
ETHER = 10**18


@dataclass
class FakeBank:
    """A chain whose clients have what a test says."""

    money: dict[bytes, Funds] = field(default_factory=dict)
    lines: dict[tuple[bytes, int], LaneFunds] = field(default_factory=dict)
    price: int = 0
    away: bool = False
    asked: list[object] = field(default_factory=list)
    settled: list[tuple[bytes, list[Claim]]] = field(default_factory=list)
    flying: list[tuple[Lane, int]] = field(default_factory=list)

    def _ask(self, what: object) -> None:
        self.asked.append(what)
        if self.away:
            raise RetryElsewhere("nobody answers", status=503, code="chain_away")

    async def funds(self, client: NodeId, token: bytes) -> Funds:
        await asyncio.sleep(0)
        self._ask(client)
        return self.money.get(client, Funds(ETHER, 0, 0))

    async def lane(self, client: NodeId, executor: NodeId, token: bytes, number: int) -> LaneFunds:
        await asyncio.sleep(0)
        self._ask((client, number))
        return self.lines.get((client, number), LaneFunds(0, 0, 0))

    async def prices(self) -> Prices:
        self._ask("gas")
        return Prices(self.price, 0)

    async def settle(self, token: bytes, claims: Sequence[Claim]) -> int:
        self._ask("settle")
        self.settled.append((token, list(claims)))
        return len(self.settled)

    async def claims(self) -> list[tuple[Lane, int]]:
        return self.flying


@dataclass
class Books:
    """A ledger that is open."""

    bank: FakeBank
    treasury: Treasury
    receivables: Receivables
    settling: Settling
    writer: Writer
    numbers: int = 0
    recalled: list[tuple[Holder, list[Lane]]] = field(default_factory=list)
    gives: dict[bytes, list[Ask]] = field(default_factory=dict)
    """What Workers, by their life, give back when they are asked."""

    async def recall(self, holder: Holder, lanes: list[Lane]) -> list[Ask]:
        self.recalled.append((holder, lanes))
        return self.gives.get(holder.life, [])

    def ask(self, lane: Lane = LANE, **what: Any) -> Ask:
        self.numbers += 1
        return Ask(lane=lane, number=self.numbers, **what)

    async def lend(self, holder: Holder = A, lane: Lane = LANE, **what: Any) -> Grant:
        (grant,) = await self.receivables.lend(holder, [self.ask(lane, **what)])
        return grant


@asynccontextmanager
async def books(path: Path, bank: FakeBank | None = None, credit: int = 0, **limits: Any) -> AsyncIterator[Books]:
    bank = bank or FakeBank()
    writer = Writer(path, accounting(batch_seconds=1e-9))
    await writer.open()
    writing = asyncio.create_task(writer.run())
    rules = replace(accounting().settlement, **{"check_seconds": 3600, **limits})
    treasury = Treasury(bank, EXECUTOR.address, TOKEN, rules, CHAIN)

    async def recall(holder: Holder, lanes: list[Lane]) -> list[Ask]:
        return await found.recall(holder, lanes)

    sign = partial(sign_receipt, identity=EXECUTOR, domain=DOMAIN)
    receivables = Receivables(writer, treasury, sign, credit, recall)
    settling = Settling(bank, treasury, writer, EXECUTOR.address, TOKEN, receivables.take_back)
    found = Books(bank, treasury, receivables, settling, writer)
    try:
        async with asyncio.timeout(60):
            yield found
    finally:
        failed = writing.done()
        writing.cancel()
        (error,) = await asyncio.gather(writing, return_exceptions=True)
        await writer.close()
        assert not failed, error


def checked(cumulative: int, lane: Lane = LANE, client: Identity = CLIENT, requests: int = 0) -> CheckedVoucher:
    usages = (Usage(bytes(32), 1, 1, requests),) if requests else ()
    words = Voucher(client.address, EXECUTOR.address, TOKEN, lane.number, cumulative, 0, voucher.usage_hash(usages))
    signed = voucher.sign(words, usages, (), client, DOMAIN)
    return voucher.check(signed, EXECUTOR.address, DOMAIN)


def draft(number: int, cost: int, lane: Lane = LANE, **changes: Any) -> Draft:
    values: dict[str, Any] = {
        "lane": lane,
        "request_digest": hashlib.sha256(b"%d" % number).digest(),
        "model": bytes(32),
        "response_hash": bytes(32),
        "response_bytes": 1000,
        "input_tokens": 20,
        "cached_tokens": 0,
        "output_tokens": 100,
        "cost": cost,
        "started_at": 1,
        "finished_at": 2,
        "status": Status.COMPLETE,
    }
    return Draft(**{**values, **changes})
