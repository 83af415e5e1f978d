"""What paying costs a client for each request: `python -m tests.bench.purse`. It prints a table and judges nothing."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Final

import msgspec
from loguru import logger

from lloom.adapters.routing.purchase import Purchase, Tab
from lloom.core import prompt
from lloom.core.billing.quote import cost
from lloom.core.billing.receipt import Delivery, Receipt, Status, check_receipt, sign_receipt
from lloom.core.billing.response import ResponseHash
from lloom.core.order import Client, Nonce, Order, Paying
from lloom.core.payment import counting
from lloom.core.payment.payable import LaneEntry
from tests.unit.adapters.routing.test_lane import CLIENT, DOMAIN, EXECUTOR, SETTINGS, TERMS, Subject
from tests.unit.adapters.routing_support import chunk
from tests.unit.core.routing.test_selection import request

REQUESTS: Final = 1000
PROMPT: Final = "Explain gravity in one sentence, please, and do so as for a child of eight years. " * 4
WORDS: Final = ("the quick brown fox jumps over the lazy dog and runs away " * 10).split()
CHAT: Final = request(messages=[{"role": "user", "content": PROMPT}], max_tokens=200)
CLIENT_OF_NOBODY: Final = Client(CLIENT, DOMAIN)


class Stopwatch:
    """CPU time by step."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._began = 0.0

    def start(self) -> None:
        self._began = time.process_time()

    def stop(self, step: str) -> None:
        self.spent[step] += time.process_time() - self._began


def main() -> None:
    """Takes a warm lane through many requests, each with an answer of about 120 tokens in as many chunks."""
    logger.remove()
    watch = asyncio.run(measure())
    print(f"{'step':<56}{'microseconds':>14}")
    for step, seconds in watch.spent.items():
        print(f"{step:<56}{seconds / REQUESTS * 1e6:>14.0f}")
    print(f"{'all':<56}{sum(watch.spent.values()) / REQUESTS * 1e6:>14.0f}")


async def measure() -> Stopwatch:
    subject = Subject(LaneEntry(0, ceiling=1 << 60, accepted=1))
    subject.lane.payable.shown(0)
    parts = [chunk({"content": word + " "}) for word in WORDS]
    watch, charged = Stopwatch(), 0
    prompt.count("chat", CHAT.body, "o200k_base")
    for number in range(REQUESTS):
        watch.start()
        count = prompt.count("chat", CHAT.body, "o200k_base")
        watch.stop("count the prompt")
        watch.start()
        paying = Paying(DOMAIN, 0, counting.accepted(count, 1, SETTINGS), 0)
        nonce = Nonce(number.to_bytes(32, "big"), bytes(16))
        order = CLIENT_OF_NOBODY.order(CHAT, TERMS, nonce, 100, paying)
        watch.stop("sign the request (a free one's as well)")
        watch.start()
        purchase = Purchase(order, TERMS.place, "o200k_base", Tab(), SETTINGS)
        await subject.lane.cover(purchase, subject.line)
        watch.stop("sign the voucher")
        charged += receive(watch, subject, purchase, parts, (number + 1, charged, count))
    return watch


def receive(
    watch: Stopwatch, subject: Subject, purchase: Purchase, parts: list[bytes], place: tuple[int, int, int]
) -> int:
    """The answer comes, and its receipt; what that charges."""
    seq, charged, inputs = place
    arrived = ResponseHash(bytes(16), 0)
    for part in parts:
        arrived.update(part)
    watch.start()
    offset = 0
    for part in parts:
        purchase.tally.feed(offset, part)
        subject.lane.progress(purchase)
        offset += len(part)
    watch.stop("keep the answer, 120 chunks")
    watch.start()
    purchase.over(lambda: None)
    watch.stop("count the answer")
    order = _of_the_executor(purchase.order)
    outputs = purchase._counted or 0
    bill = Receipt(
        order.digest,
        order.quote.model,
        arrived.digest(arrived.length),
        arrived.length,
        inputs,
        0,
        outputs,
        cost(order.quote, inputs, 0, outputs),
        seq,
        charged + cost(order.quote, inputs, 0, outputs),
        1,
        2,
        Status.COMPLETE,
    )
    signed = sign_receipt(bill, EXECUTOR, DOMAIN)
    watch.start()
    digest = arrived.digest(arrived.length)
    check_receipt(signed, Delivery(order.request, order.digest, order.quote, digest, arrived.length), DOMAIN)
    watch.stop("check the receipt (a free one's as well)")
    watch.start()
    subject.lane.settle(purchase, signed, bill, purchase.problem(bill))
    watch.stop("judge the receipt")
    assert not subject.ledger.judged.pop().problem
    return bill.cost


def _of_the_executor(order: Order) -> Order:
    return msgspec.structs.replace(order, quote=msgspec.structs.replace(order.quote, executor=EXECUTOR.address))


if __name__ == "__main__":
    main()
