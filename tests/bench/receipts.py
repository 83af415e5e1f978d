"""What requests and receipts cost: `python -m tests.bench.receipts`. It prints a table and judges nothing."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Final, cast

from loguru import logger
from msgspec.structs import replace

from lloom.actors.accounting import Accounting
from lloom.actors.place import Place
from lloom.core.billing.lane import Lane
from lloom.core.billing.quote import quote_hash, quote_of
from lloom.core.billing.receipt import Delivery, Draft, Status, check_receipt, sign_receipt
from lloom.core.billing.request import Request, check_request, request_hash, sign_request
from lloom.core.billing.response import ResponseHash
from lloom.core.eip712 import Domain
from lloom.core.identity import Identity, keccak
from lloom.core.offer import ModelOffer, Offer
from tests.money_support import accounting

CALLS: Final = 3000
RECEIPTS: Final = 8000
DOMAIN: Final = Domain()
CLIENT: Final = Identity.generate()
EXECUTOR: Final = Identity.generate()


def main() -> None:
    """Measures CPU time of each step, and receipts per second through `Accounting` with its journal on a real disk."""
    logger.remove()
    print(f"{'step':<44}{'microseconds':>14}")
    for name, step in steps().items():
        print(f"{name:<44}{microseconds(step):>14.1f}")
    print(f"\n{'issue(), journal included':<44}{'receipts/s':>14}")
    for callers, size in ((1, 32), (8, 1), (64, 1), (16, 32)):
        print(f"{f'{callers} callers, {size} receipts a call':<44}{rate(callers, size):>14,.0f}")


def steps() -> dict[str, Callable[[], object]]:
    """Every signature and hash on the way of one request."""
    request, delivery, draft = example()
    encoded, _, signature = sign_request(request, CLIENT, DOMAIN)
    signed = sign_receipt(draft.numbered(1, 0), EXECUTOR, DOMAIN)
    token = bytes(200)
    answer = ResponseHash(bytes(16), 256 * 1024)
    return {
        "keccak of 320 bytes": lambda: keccak(bytes(320)),
        "client: hash a body of 2 kB": lambda: request_hash(bytes(16), "chat", "model", bytes(2000)),
        "client: sign a request": lambda: sign_request(request, CLIENT, DOMAIN),
        "executor: check a request": lambda: check_request(encoded, signature, DOMAIN, 0),
        "either: hash one chunk of 200 bytes": lambda: answer.update(token),
        "executor: sign a receipt": lambda: sign_receipt(draft.numbered(1, 0), EXECUTOR, DOMAIN),
        "client: check a receipt": lambda: check_receipt(signed, delivery, DOMAIN),
        "either: quote of an offer, and its hash": lambda: quote_hash(quote_of(*offer())),
    }


def microseconds(step: Callable[[], object]) -> float:
    """CPU time of one call, the best of five runs."""
    runs = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(CALLS // 5):
            step()
        runs.append((time.process_time() - start) / (CALLS // 5) * 1e6)
    return min(runs)


def rate(callers: int, size: int) -> float:
    """Receipts per second of `callers` at once that issue `size` receipts a call."""
    with tempfile.TemporaryDirectory() as home:
        return asyncio.run(issue_all(Path(home), callers, size))


async def issue_all(home: Path, callers: int, size: int) -> float:
    subject = Accounting(place(home))
    life = asyncio.create_task(subject.serve())
    await subject.ready()
    _, _, draft = example()
    calls = RECEIPTS // callers // size

    async def caller() -> None:
        for _ in range(calls):
            await subject.issue([replace(draft, request_digest=os.urandom(32)) for _ in range(size)])

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    elapsed = time.perf_counter() - start
    life.cancel()
    with suppress(asyncio.CancelledError):
        await life
    return callers * calls * size / elapsed


def offer() -> tuple[Offer, ModelOffer]:
    model = ModelOffer(
        id="smollm2-135m", context=8192, max_output=2048, parallel=2, encoding="o200k_base", backend="smollm2"
    )
    whole = Offer(
        executor=EXECUTOR.address, seq=1, expires=2**40, endpoints=(), models=(model,), software="lloom/bench"
    )
    return whole, model


def example() -> tuple[Request, Delivery, Draft]:
    quote = quote_of(*offer())
    request = Request(quote_hash(quote), CLIENT.address, 0, os.urandom(32), bytes(32), 100, 100, 0, 2**40)
    _, digest, _ = sign_request(request, CLIENT, DOMAIN)
    draft = Draft(
        lane=Lane(CLIENT.address, quote.token, 0),
        request_digest=digest,
        model=quote.model,
        response_hash=bytes(32),
        response_bytes=10_000,
        input_tokens=100,
        cached_tokens=0,
        output_tokens=100,
        cost=0,
        started_at=1,
        finished_at=2,
        status=Status.COMPLETE,
    )
    return request, Delivery(request, digest, quote, bytes(32), 10_000), draft


def place(home: Path) -> Place:
    """As much of an actor's place as accounting needs, with the values of conf/config.yaml."""
    limits = accounting(batch=32, report_seconds=0.05)
    tree = SimpleNamespace(home=str(home), role="executor", accounting=limits, chain={})
    found = SimpleNamespace(
        name="accounting", settings=tree, identity=lambda: EXECUTOR, open_log=lambda: None, restarted=lambda: False
    )
    return cast(Place, found)


if __name__ == "__main__":
    main()
