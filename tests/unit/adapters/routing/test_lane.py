"""A lane without a network: who waits for a ceiling, and how often anybody is asked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec import structs

from lloom.adapters.routing.lane import Lane
from lloom.adapters.routing.purchase import LONG_BYTES, Purchase, Tab
from lloom.adapters.routing.wallet import Wallet
from lloom.core.api.embeddings import Embeddings
from lloom.core.billing.receipt import Receipt, Status, sign_receipt
from lloom.core.eip712 import Domain
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity, NodeId
from lloom.core.messages import SignedVoucher
from lloom.core.metering import KEPT_BYTES
from lloom.core.order import Client, Nonce, Paying
from lloom.core.payment.payable import Judged, LaneEntry
from lloom.core.payment.promises import Ask, Raised
from lloom.core.payment.voucher import check, read
from lloom.core.routing.outcomes import Place
from lloom.core.settings import PrepaySettings
from tests.money_support import accounting
from tests.unit.adapters.routing_support import chunk
from tests.unit.core.routing.test_selection import candidate, request

CLIENT, EXECUTOR = Identity(bytes(31) + b"\x01"), Identity(bytes(31) + b"\x02")
DOMAIN = Domain(31337, b"\xc0" * 20)
PREPAY = PrepaySettings(per_executor=1_000_000, newcomers=1 << 60, ahead=1.0)
SETTINGS = accounting(prepay=PREPAY, tolerance=0.5, slack=4)
TERMS = candidate(1, input_price=1_000 * 10**6, output_price=1_000 * 10**6)
WINDOW = 16_000


@dataclass
class Ledger:
    """Allows `most`, once the gate is open."""

    most: int = 1 << 60
    asks: list[Ask] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    error: RetryElsewhere | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    async def lane(self, executor: NodeId) -> LaneEntry | None:
        raise AssertionError

    async def adopt(self, executor: NodeId, entry: LaneEntry) -> LaneEntry:
        raise AssertionError

    async def raise_ceiling(self, ask: Ask) -> Raised:
        self.asks.append(ask)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        if ask.least > self.most:
            return Raised(0, "budget", "The budget is spent.")
        return Raised(min(ask.best, self.most))

    def keep(self, judged: Judged) -> None:
        self.judged.append(judged)


class Line:
    """A connection that keeps what was said."""

    def __init__(self) -> None:
        self.said: list[SignedVoucher] = []

    def send_control(self, message: SignedVoucher) -> None:
        self.said.append(message)


class Subject:
    """A lane, its ledger and a line."""

    def __init__(self, entry: LaneEntry = LaneEntry(0), **ledger: Any) -> None:  # noqa: B008 - an immutable value
        self.ledger = Ledger(**ledger)
        self.line: Any = Line()
        self.lies: list[Any] = []
        self.accepted: list[Any] = []
        wallet = Wallet("anvil", CLIENT, DOMAIN, bytes(20), SETTINGS, self.ledger, self._judged)
        self.lane = Lane(EXECUTOR.address, entry, wallet)
        self.count = 0

    def _judged(self, place: Place, accepted: bool) -> None:
        (self.accepted if accepted else self.lies).append(place)

    def purchase(self, inputs: int = 10) -> Purchase:
        self.count += 1
        nonce = Nonce(self.count.to_bytes(32, "big"), bytes(16))
        order = Client(CLIENT, DOMAIN).order(request(max_tokens=200), TERMS, nonce, 100, Paying(DOMAIN, 0, inputs, 0))
        bought = Purchase(order, TERMS.place, "o200k_base", Tab(), SETTINGS)
        bought.window = WINDOW
        return bought

    async def cover(self, purchase: Purchase | None = None, line: Any = None) -> int | None:
        """What the voucher of a request comes to; None if it needs none."""
        signed = await self.lane.cover(purchase or self.purchase(), line or self.line)
        return None if signed is None else check(signed, EXECUTOR.address, DOMAIN).voucher.cumulative

    def settle(self, purchase: Purchase, cost: int = 5_000, seq: int = 1, charged: int = 5_000) -> None:
        made = Receipt(
            purchase.order.digest, bytes(32), bytes(32), 9, 3, 0, 2, cost, seq, charged, 1, 2, Status.COMPLETE
        )
        self.lane.settle(purchase, sign_receipt(made, EXECUTOR, DOMAIN), made, None)


async def turns(number: int = 20) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_all_first_requests_wait_for_one_raise() -> None:
    subject = Subject()
    subject.ledger.gate.clear()
    waiting = [asyncio.create_task(subject.cover()) for _ in range(30)]
    await turns()
    assert (len(subject.ledger.asks), subject.lane.payable.signed) == (1, 0)
    subject.ledger.gate.set()
    vouchers = [each for each in await asyncio.gather(*waiting) if each is not None]
    assert len(subject.ledger.asks) <= 3
    assert max(vouchers) == subject.lane.payable.signed <= subject.lane.payable.ceiling
    assert sorted(vouchers) == vouchers
    assert subject.lane.payable.open == 30 * 26_000


async def test_who_cannot_be_covered_is_told_and_leaves_nothing_behind() -> None:
    subject = Subject(most=60_000)
    assert await subject.cover() == 52_000
    with pytest.raises(RetryElsewhere, match="The budget is spent") as caught:
        await subject.cover()
    assert (caught.value.status, caught.value.code) == (402, "budget")
    assert (subject.lane.payable.open, len(subject.lane.purchases), subject.lane.ceiling.waiting) == (26_000, 1, 0)


async def test_one_that_gives_up_does_not_stop_the_others() -> None:
    subject = Subject()
    subject.ledger.gate.clear()
    gives_up, stays = asyncio.create_task(subject.cover()), asyncio.create_task(subject.cover())
    await turns()
    gives_up.cancel()
    await turns()
    subject.ledger.gate.set()
    assert await stays == 52_000
    assert gives_up.cancelled()


async def test_a_ledger_that_is_away_is_no_answer() -> None:
    subject = Subject(error=RetryElsewhere("it restarts", code="restarting"))
    with pytest.raises(RetryElsewhere, match="it restarts"):
        await subject.cover()
    subject.ledger.error = None
    assert await subject.cover() == 52_000


async def test_a_request_that_waited_for_a_ceiling_needs_no_voucher_if_one_covers_it_by_then() -> None:
    subject = Subject()
    subject.ledger.gate.clear()
    waiting = [asyncio.create_task(subject.cover(subject.purchase(inputs))) for inputs in (10, 1)]
    await turns()
    subject.ledger.gate.set()
    assert await asyncio.gather(*waiting) == [52_000, None]


async def test_the_ceiling_is_raised_ahead_once_the_executor_has_delivered() -> None:
    subject = Subject()
    first = subject.purchase()
    await subject.cover(first)
    assert subject.lane.payable.ceiling == 52_000 + 26_000  # no more than needed for a newcomer
    subject.settle(first)
    await turns()
    assert subject.lane.payable.ceiling == 78_000 + PREPAY.per_executor // 4
    asked = len(subject.ledger.asks)
    await subject.cover()
    assert len(subject.ledger.asks) == asked


async def test_a_raise_in_vain_is_not_repeated_at_every_request() -> None:
    subject = Subject(most=200_000)
    purchases = [subject.purchase() for _ in range(20)]
    for number, each in enumerate(purchases, 1):
        await subject.cover(each)
        subject.settle(each, seq=number, charged=5_000 * number)
        await turns()
    assert len(subject.ledger.asks) < 8


async def test_a_request_that_is_covered_needs_no_voucher() -> None:
    subject, vouchers = Subject(), []
    for number in range(1, 31):
        bought = subject.purchase()
        before = subject.lane.payable.signed
        vouchers.append(await subject.cover(bought))
        if vouchers[-1] is None:
            assert before == subject.lane.payable.signed >= subject.lane.payable.accepted + 26_000 + 13_000
        subject.settle(bought, seq=number, charged=5_000 * number)
    given = [each for each in vouchers if each is not None]
    assert given == [52_000 + each for each in range(0, 150_000, 15_000)]  # one covers three requests of 5,000


async def test_whoever_was_told_nothing_gets_a_voucher() -> None:
    subject = Subject()
    subject.lane.payable.shown(0)
    bought, other = subject.purchase(), Line()
    assert await subject.cover(bought) == 52_000
    subject.settle(bought)
    assert await subject.cover(subject.purchase(), other) == 57_000
    assert await subject.cover(subject.purchase()) == 83_000


async def test_a_voucher_that_went_with_a_request_that_failed_is_given_again() -> None:
    subject = Subject()
    first = subject.purchase()
    assert await subject.cover(first) == 52_000
    subject.lane.give_up(first)
    assert await subject.cover() == 52_000


async def test_a_covered_request_does_not_wait_for_a_ceiling() -> None:
    subject = Subject(most=60_000)
    first = subject.purchase()
    await subject.cover(first)
    subject.settle(first)  # what is ahead is beyond the ceiling by now
    assert await subject.cover() is None


async def test_a_need_is_answered_as_the_answer_arrives() -> None:
    subject = Subject()
    bought = subject.purchase()
    await subject.cover(bought)
    subject.lane.need(1 << 100, subject.line)
    at_once = subject.lane.payable.signed
    assert at_once <= 52_000 + 4_000
    for _ in range(40):
        bought.tally.feed(bought.tally.fed, chunk({"content": " hello"}))
        subject.lane.progress(bought)
        await turns(5)
    most = 10_000 + 64 * 1_000 + WINDOW + WINDOW  # prompt, 40 tokens with tolerance and slack, a window, one ahead
    assert at_once + 30_000 <= subject.lane.payable.signed <= most
    assert len(subject.line.said) <= 40 // 3
    amounts = [read(each).cumulative for each in subject.line.said]
    assert amounts == sorted(set(amounts))


async def test_a_need_is_met_and_then_forgotten() -> None:
    subject = Subject()
    bought = subject.purchase()
    await subject.cover(bought)
    bought.tally.feed(0, chunk({"content": " hello" * 10}))
    subject.lane.need(53_000, subject.line)
    await turns()
    assert [read(each).cumulative for each in subject.line.said] == [53_000]
    bought.tally.feed(bought.tally.fed, chunk({"content": " hello" * 40}))
    subject.lane.progress(bought)
    assert len(subject.line.said) == 1


async def test_needs_without_end_are_looked_at_seldom() -> None:
    subject, looks = Subject(), 0
    bought = subject.purchase()
    await subject.cover(bought)

    def look(_seen: int) -> bytes:
        nonlocal looks
        looks += 1
        return b""

    bought.look = look
    for more in range(1000):
        subject.lane.need((1 << 100) + more, subject.line)
    assert looks == 1
    bought.look = lambda _seen: look(0) or chunk({"content": " hello" * 40}) * (looks == 2)
    async with asyncio.timeout(10):
        while subject.lane.payable.signed < 90_000:  # noqa: ASYNC110 - a timer of the lane's own
            await asyncio.sleep(0)
    assert looks == 2


async def test_a_voucher_is_repeated_where_it_may_have_been_lost_and_nowhere_else() -> None:
    subject = Subject()
    await subject.cover()
    for _ in range(100):
        subject.lane.need(1, subject.line)
    assert subject.line.said == []
    other: Any = Line()
    for _ in range(100):
        subject.lane.need(1, other)
    assert [read(each).cumulative for each in other.said] == [52_000]


async def test_a_need_waits_for_a_raise_that_others_began() -> None:
    subject = Subject()
    bought = subject.purchase()
    await subject.cover(bought)
    subject.ledger.gate.clear()
    second = asyncio.create_task(subject.cover(subject.purchase(inputs=100)))
    await turns()
    bought.tally.feed(0, chunk({"content": " hello" * 100}))
    subject.lane.need(90_000, subject.line)
    assert subject.line.said == []
    subject.ledger.gate.set()
    await second
    await turns()
    assert subject.lane.payable.signed >= 90_000


async def test_a_need_waits_for_a_raise_that_was_begun_ahead() -> None:
    subject = Subject()
    first, second = subject.purchase(), subject.purchase()
    await subject.cover(first)
    subject.ledger.gate.clear()
    subject.settle(first)
    assert subject.lane.ceiling._raising is not None
    await subject.cover(second)
    second.tally.feed(0, chunk({"content": " hello" * 100}))
    subject.lane.need(150_000, subject.line)
    assert subject.line.said == []
    subject.ledger.gate.set()
    await turns()
    assert [read(each).cumulative for each in subject.line.said] == [150_000]


async def test_a_closing_voucher_is_sent_when_it_says_something_new() -> None:
    subject = Subject()
    bought = subject.purchase()
    await subject.cover(bought)
    await subject.lane.close()
    assert subject.line.said == []
    subject.settle(bought)
    await subject.lane.close()
    await subject.lane.close()
    [closing] = subject.line.said
    assert (read(closing).cumulative, read(closing).accepted, closing.usages[0].requests) == (52_000, 5_000, 1)


async def test_what_was_accepted_on_credit_is_promised_at_the_end() -> None:
    subject = Subject()
    bought = subject.purchase()
    await subject.cover(bought)
    subject.settle(bought, cost=70_000, charged=70_000)
    await subject.lane.close()
    assert read(subject.line.said[-1]).cumulative == read(subject.line.said[-1]).accepted == 70_000


async def test_a_long_answer_is_counted_in_a_thread_and_not_kept() -> None:
    bought = Subject().purchase()
    while bought.tally.fed <= LONG_BYTES:
        bought.tally.feed(bought.tally.fed, chunk({"content": " hello"}))
    words, counted = bought.tally.total(), asyncio.Event()
    bought.over(counted.set)
    assert not bought.counted
    await counted.wait()
    assert bought.tally.fed == len(bought.tally._kept._bytes) == 0
    most = words + words // 2 + 4
    made = Receipt(bytes(32), bytes(32), bytes(32), 9, 3, 0, most, 1, 1, 1, 1, 2, Status.COMPLETE)
    assert bought.problem(made) is None or words % 2
    assert bought.problem(structs.replace(made, output_tokens=most + 2)) is not None


async def test_what_somebody_has_read_is_not_read_again() -> None:
    bought, counted = Subject().purchase(), []
    bought.tally.feed(0, b"no event at all")
    bought.over(lambda: counted.append(bought.worth()), " hello hello hello")
    assert counted == [3_000]


async def test_an_answer_of_more_bytes_than_an_executor_keeps_is_counted_as_it_counts() -> None:
    bought, counted = Subject().purchase(), asyncio.Event()
    bought.tally.feed(0, chunk({"content": " hello", "more": "x" * KEPT_BYTES}))
    bought.tally.feed(bought.tally.fed, chunk({"content": " hello", "more": "x" * 400}))
    count = bought.tally.total()
    bought.over(counted.set, " hello hello")
    await counted.wait()
    assert (count > 100, bought.worth()) == (True, 1_000 * count)


def test_for_what_has_no_tokens_no_window_is_paid_ahead() -> None:
    asked = Embeddings().read(b'{"model":"m","input":"a"}', "").request
    order = Client(CLIENT, DOMAIN).order(asked, TERMS, Nonce(bytes(32), bytes(16)), 100, Paying(DOMAIN, 0, 10, 0))
    purchase = Purchase(order, TERMS.place, "o200k_base", Tab(), SETTINGS)
    purchase.window = WINDOW
    assert purchase.draw == purchase.allowance() == order.request.max_cost > 0


async def test_what_became_of_each_receipt_is_told() -> None:
    subject = Subject()
    for charged in (5_000, 9_000):  # the second one adds up to less than both
        purchase = subject.purchase()
        await subject.cover(purchase)
        purchase.over(lambda: None)
        subject.settle(purchase, seq=1 if charged == 5_000 else 2, charged=charged)
    assert (subject.accepted, subject.lies) == ([TERMS.place], [TERMS.place])
