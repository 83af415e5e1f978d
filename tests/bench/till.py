"""What being paid costs an executor: `python -m tests.bench.till`. It prints a table and judges nothing."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Final

from loguru import logger

from lloom.core.billing.lane import Lane
from lloom.core.identity import Identity
from lloom.core.messages import SignedVoucher, decode, decoder, encode
from lloom.core.payment.voucher import CheckedVoucher
from tests.integration.receivables_support import A, Books, books, checked, draft
from tests.unit.adapters.serving.till_support import CLIENT, LANE, counter, signed

REQUESTS: Final = 2000
TOKENS: Final = 100


def main() -> None:
    """CPU time and time for each request: in the Worker, and in the ledger with its journal on a real disk."""
    logger.remove()
    print(f"{'microseconds for a request':<56}{'CPU':>10}{'elapsed':>10}")
    row("Worker: check a voucher, draw, 100 tokens, settle", *asyncio.run(worker()))
    for size in (1, 16, 64):
        name = f"ledger: voucher, lease, receipt; {size} clients in a batch"
        row(name, *asyncio.run(ledger(size)))


def row(name: str, cpu: float, elapsed: float) -> None:
    print(f"{name:<56}{cpu * 1e6:>10.0f}{elapsed * 1e6:>10.0f}")


async def worker() -> tuple[float, float]:
    """On a warm lane, each request with a new voucher."""
    kind = decoder(SignedVoucher)
    wire = [encode(signed(1000 * (number + 1))) for number in range(REQUESTS)]
    async with counter() as it:
        it.till.take(CLIENT.address, signed(900))
        (await it.open()).close(1)
        cpu, began = time.process_time(), time.perf_counter()
        for message in wire:
            it.till.take(CLIENT.address, decode(message, kind))
            tab = await it.open()
            for outputs in range(TOKENS):
                tab.covers(outputs)
            tab.close(TOKENS)
            it.till.issued([LANE])
        await it.till.close()
        return (time.process_time() - cpu) / REQUESTS, (time.perf_counter() - began) / REQUESTS


async def ledger(size: int) -> tuple[float, float]:
    """As many clients as requests in a batch, each with a voucher and a receipt in every batch."""
    clients = [Identity.generate() for _ in range(size)]
    lanes = [Lane(client.address, bytes(20), 0) for client in clients]
    rounds = max(2, 512 // size)
    vouchers = [
        [checked(1000 * (turn + 1), lane, client) for lane, client in zip(lanes, clients, strict=True)]
        for turn in range(rounds)
    ]
    with tempfile.TemporaryDirectory() as home:
        async with books(Path(home) / "ledger.sqlite") as found:
            await turn_of(found, lanes, vouchers[0], 0)
            cpu, began = time.process_time(), time.perf_counter()
            for turn in range(1, rounds):
                await turn_of(found, lanes, vouchers[turn], turn)
            done = (rounds - 1) * size
            return (time.process_time() - cpu) / done, (time.perf_counter() - began) / done


async def turn_of(found: Books, lanes: list[Lane], vouchers: list[CheckedVoucher], turn: int) -> None:
    asks = [found.ask(lane, voucher=each) for lane, each in zip(lanes, vouchers, strict=True)]
    await found.receivables.lend(A, asks)
    drafts = [draft(turn * len(lanes) + number, 5, lane) for number, lane in enumerate(lanes)]
    await found.receivables.issue(A, drafts)


if __name__ == "__main__":
    main()
