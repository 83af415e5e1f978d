"""Executors that cheat: what a client loses to each, which is bounded, and that it remembers. Each test prints the loss."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from market_support import (
    DOMAIN,
    END,
    PER_EXECUTOR,
    PRICE,
    TOKEN_COST,
    WINDOW,
    WORD,
    Buyer,
    Sale,
    Seller,
    buying,
    listening,
)
from payables_support import TOKEN

from lloom.core.billing.receipt import Receipt, Status, sign_receipt
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import Identity
from lloom.core.messages import Done, LaneCall, LaneState, wei
from lloom.core.payment.numbering import TWICE, WRONG_TOTAL
from lloom.core.payment.voucher import Voucher, read, sign, usage_hash
from lloom.core.routing.breaker import State
from tests.money_support import lost
from tests.unit.adapters.routing_support import request

OUTPUTS = 50


async def ask(buyer: Buyer, **fields: Any) -> bytes:
    answer = await buyer.router.ask(request(max_tokens=OUTPUTS, **fields))
    return b"".join([data async for data in answer])


def report(what: str, seller: Seller, accepted: int, bound: int) -> int:
    """Prints, and returns, what the executor can redeem beyond what was accepted; nobody else can redeem any of that."""
    assert all(read(book.voucher).accepted <= accepted for book in seller.books.values() if book.voucher)
    loss = max(book.best for book in seller.books.values()) - accepted
    lost(what, max(0, loss), bound)
    return loss


def selling(bill: Callable[[Sale], None], words: int = 4) -> Callable[[Sale], Awaitable[None]]:
    async def serve(sale: Sale) -> None:
        await sale.send(*[WORD] * words, END)
        await sale.stream.finish(Done(9, words))
        bill(sale)

    return serve


def draw(sale: Sale) -> int:
    return (sale.request.max_input_tokens + WINDOW) * TOKEN_COST


def too_many_outputs(sale: Sale) -> None:
    sale.bill(sale.receipt(9, 11))


def too_many_inputs(sale: Sale) -> None:
    sale.bill(sale.receipt(19, 4))


def a_higher_price(sale: Sale) -> None:
    sale.bill(sale.receipt(9, 4, cost=26 * TOKEN_COST))


def a_failure_that_costs(sale: Sale) -> None:
    sale.bill(sale.receipt(9, 4, status=Status.FAILED))


def another_answer(sale: Sale) -> None:
    sale.bill(sale.receipt(9, 4, response_hash=bytes(32)))


def a_total_that_does_not_add_up(sale: Sale) -> None:
    sale.bill(sale.receipt(9, 4, lane_charged=1 << 90))


CHEATS = {
    too_many_outputs: "11 output tokens where 4 are counted, and 10 accepted",
    too_many_inputs: "more input tokens than were allowed",
    a_higher_price: "a cost that is not the quoted one",
    a_failure_that_costs: "a cost that is not the quoted one",
    another_answer: "another answer than what arrived",
    a_total_that_does_not_add_up: WRONG_TOTAL,
}


@pytest.mark.parametrize(("cheat", "problem"), CHEATS.items(), ids=[cheat.__name__ for cheat in CHEATS])
async def test_a_false_receipt_is_not_paid_and_remembered(
    tmp_path: Path, cheat: Callable[[Sale], None], problem: str
) -> None:
    seller, honest = Seller(selling(cheat)), Seller(price=2 * PRICE)
    async with listening(seller, honest), buying(tmp_path / "ledger.sqlite", seller, honest) as buyer:
        await ask(buyer)
        await buyer.bank.settled(1)
        assert problem in buyer.problems[0]
        lane = buyer.lane(seller)
        assert (lane.payable.accepted, lane.payable.left_out, lane.purchases) == (0, (1,), {})
        assert buyer.lies == [(seller.address, seller.endpoint, "m")]
        assert buyer.purses.figures() == {"lanes_open": 1, "lanes_disputed": 1}
        entry = await buyer.bank.payables.lane(seller.address)
        assert entry is not None
        assert (entry.accepted, entry.left_out) == (0, (1,))
        await ask(buyer)
        assert len(seller.sales) == len(honest.sales) == 1, "others are asked now"
        loss = report(cheat.__name__, seller, 0, 2 * draw(seller.sales[0]))
        assert 0 < loss <= 2 * draw(seller.sales[0])


async def test_a_voucher_after_a_false_receipt_says_that_it_is_left_out(tmp_path: Path) -> None:
    seller = Seller(selling(too_many_outputs))
    async with listening(seller), buying(tmp_path / "ledger.sqlite", seller) as buyer:
        await ask(buyer)
        while seller.book.voucher is None or not seller.book.voucher.left_out:
            seller.book.changed.clear()
            await seller.book.changed.wait()
        assert (seller.book.voucher.left_out, seller.book.voucher.usages) == ((1,), ())


async def test_whoever_cheats_in_every_request_gets_no_more_than_the_prepayment(tmp_path: Path) -> None:
    seller = Seller(selling(too_many_outputs))
    async with listening(seller), buying(tmp_path / "ledger.sqlite", seller, closing_seconds=30) as buyer:
        for number in range(100):
            buyer.outcomes.__init__(600, 5)  # type: ignore[misc] # a client that forgets
            await ask(buyer)
            await buyer.bank.settled(number + 1)
        loss = report("a hundred false receipts", seller, 0, PER_EXECUTOR)
        assert loss <= 2 * draw(seller.sales[0]), "what was promised is used up before more is"


async def test_a_charge_for_an_answer_that_never_came_is_refused(tmp_path: Path) -> None:
    async def serve(sale: Sale) -> None:
        sale.bill(sale.receipt(9, 0, status=Status.CANCELLED))
        raise RetryElsewhere("no", code="busy")

    seller = Seller(serve)
    async with listening(seller), buying(tmp_path / "ledger.sqlite", seller) as buyer:
        with pytest.raises(RetryElsewhere):
            await ask(buyer)
        await buyer.bank.settled(1)
        assert buyer.problems == ["a charge for an answer that never came"]
        assert report("a charge for nothing", seller, 0, 2 * draw(seller.sales[0])) <= 2 * draw(seller.sales[0])


async def test_two_receipts_with_one_number_are_noticed(tmp_path: Path) -> None:
    def twice(sale: Sale) -> None:
        if sale.book.seq == 0:
            sale.bill(sale.receipt(9, 4))
        else:
            sale.bill(sale.receipt(9, 4, lane_seq=1, lane_charged=13 * TOKEN_COST))

    seller = Seller(selling(twice))
    async with listening(seller), buying(tmp_path / "ledger.sqlite", seller) as buyer:
        for number in (1, 2):
            await ask(buyer)
            await buyer.bank.settled(number)
        assert buyer.problems == ["", TWICE]
        assert buyer.lane(seller).payable.accepted == 13 * TOKEN_COST
        assert report("one number twice", seller, 13 * TOKEN_COST, PER_EXECUTOR) <= 4 * draw(seller.sales[0])
        assert len(buyer.lies) == 1


async def test_needs_without_end_get_what_arrived_and_what_may_arrive_next(tmp_path: Path) -> None:
    async def serve(sale: Sale) -> None:
        for _ in range(20):
            for _ in range(50):
                sale.need(1 << 120)
            await sale.send(WORD)
        await sale.send(END)
        await sale.stream.finish(Done(9, 20))
        sale.bill(sale.receipt(9, 20))

    seller = Seller(serve)
    async with listening(seller), buying(tmp_path / "ledger.sqlite", seller) as buyer:
        await ask(buyer)
        await buyer.bank.settled(1)
        [sale] = seller.sales
        bound = sale.request.max_cost + WINDOW * TOKEN_COST
        assert report("needs without end", seller, buyer.lane(seller).payable.accepted, bound) <= bound
        assert len(seller.vouchers) < 100, "a thousand needs are not a thousand signatures"


async def test_needs_for_nothing_get_nothing(tmp_path: Path) -> None:
    async def serve(sale: Sale) -> None:
        await sale.send(WORD)
        for _ in range(50):
            sale.need(1 << 120)
        await sale.send(END)
        await sale.stream.finish(Done(9, 1))
        sale.bill(sale.receipt(9, 1))

    seller = Seller(serve)
    async with listening(seller), buying(tmp_path / "ledger.sqlite", seller) as buyer:
        await ask(buyer)
        await buyer.bank.settled(1)
        for connection in tuple(seller.listener.connections):
            for _ in range(1000):
                seller.sales[0].stream.connection = connection
                seller.sales[0].need(1 << 120)
        before = seller.book.best
        await ask(buyer)
        await buyer.bank.settled(2)
        assert seller.book.best - before <= 2 * draw(seller.sales[0])


async def test_an_old_quote_at_a_higher_price_is_no_order_of_ours(tmp_path: Path) -> None:
    """The request names the quote by its hash: a receipt at another one's prices contradicts it."""
    seller = Seller()

    def old(sale: Sale) -> None:
        sale.quote = msgspec.structs.replace(sale.quote, input_price=5 * PRICE, cached_price=5 * PRICE)
        sale.bill(sale.receipt(9, 4))

    seller.serve = selling(old)
    async with listening(seller), buying(tmp_path / "ledger.sqlite", seller) as buyer:
        await ask(buyer)
        await buyer.bank.settled(1)
        assert "a cost that is not the quoted one" in buyer.problems[0]
        assert report("an old quote", seller, 0, PER_EXECUTOR) <= 2 * draw(seller.sales[0])


async def test_a_receipt_that_somebody_else_signed_counts_for_nothing(tmp_path: Path) -> None:
    def forged(sale: Sale) -> None:
        honest = sale.receipt(9, 4)
        other = Identity.generate()
        sale.bill(msgspec.structs.replace(honest, signature=other.sign_digest(bytes(32))), honest)

    seller = Seller(selling(forged))
    async with listening(seller), buying(tmp_path / "ledger.sqlite", seller) as buyer:
        await ask(buyer)
        await buyer.bank.settled(1)
        assert (buyer.problems, buyer.lies) == ([""], [])


async def test_what_is_no_receipt_counts_for_nothing_though_it_names_an_order(tmp_path: Path) -> None:
    def malformed(sale: Sale) -> None:
        honest = sale.receipt(9, 4)
        words = honest.receipt[:96] + b"\xff" * 32 + honest.receipt[128:]
        sale.bill(*(msgspec.structs.replace(honest, receipt=each) for each in (words, honest.receipt[:32])), honest)

    seller = Seller(selling(malformed))
    async with listening(seller), buying(tmp_path / "ledger.sqlite", seller) as buyer:
        await ask(buyer)
        await buyer.bank.settled(1)
        assert (buyer.problems, buyer.lies) == ([""], [])


async def test_a_voucher_that_we_did_not_sign_promises_nothing(tmp_path: Path) -> None:
    class Forger(Seller):
        def state(self, call: LaneCall) -> LaneState:
            words = Voucher(self.client, self.address, TOKEN, call.lane, 1 << 100, 0, usage_hash(()))
            forged = sign(words, (), (), Identity.generate(), DOMAIN)
            return LaneState(wei(1 << 100), 0, wei(0), forged, ())

    seller, honest = Forger(), Seller(price=2 * PRICE)
    async with listening(seller, honest), buying(tmp_path / "ledger.sqlite", seller, honest) as buyer:
        seller.client = buyer.purse.wallet.identity.address
        await ask(buyer)
        assert (seller.sales, len(honest.sales)) == ([], 1)
        assert await buyer.bank.payables.lane(seller.address) is None
        place = (seller.address, seller.endpoint, "m")
        assert buyer.outcomes.state(place, asyncio.get_running_loop().time()) is State.BARRED


async def test_receipts_of_requests_nobody_made_are_refused(tmp_path: Path) -> None:
    seller = Seller()
    async with listening(seller), buying(tmp_path / "ledger.sqlite", seller) as buyer:
        await ask(buyer)
        await buyer.bank.settled(1)
        invented = Receipt(bytes(32), bytes(32), bytes(32), 9, 5, 0, 5, 1 << 60, 2, 13_000 + (1 << 60), 1, 2, 0)
        seller.book.receipts.append(sign_receipt(invented, seller.identity, DOMAIN))
        seller.book.seq, seller.book.charged = 2, invented.lane_charged
        buyer.purse.lanes.doubt(seller.address)
        await buyer.bank.settled(2)
        assert buyer.problems == ["", "a charge for a request that nobody made"]
        assert buyer.lane(seller).payable.accepted == 13 * TOKEN_COST


async def test_an_executor_that_refuses_many_requests_is_asked_once_how_the_lane_stands(tmp_path: Path) -> None:
    """Its answer may hold a thousand receipts, whose signatures take a client a tenth of a second."""
    seller = Seller()
    async with listening(seller), buying(tmp_path / "ledger.sqlite", seller) as buyer:
        await ask(buyer)
        await buyer.bank.settled(1)
        before = seller.lane_calls
        seller.sales[-1].receipt(0, 0, cost=0, status=Status.FAILED, request_digest=os.urandom(32))
        for _ in range(20):
            buyer.purse.lanes.doubt(seller.address)
        await buyer.bank.settled(2)
        seller.sales[-1].receipt(0, 0, cost=0, status=Status.FAILED, request_digest=os.urandom(32))
        await asyncio.sleep(0)
        buyer.purse.lanes.doubt(seller.address)
        await buyer.bank.settled(3)
        assert seller.lane_calls - before == 2


async def test_what_nobody_ordered_is_no_usage_though_it_costs_nothing(tmp_path: Path) -> None:
    """Else an executor has its client countersign whatever it likes, and is taken for one that has served a lot."""
    seller = Seller()
    async with listening(seller), buying(tmp_path / "ledger.sqlite", seller) as buyer:
        await ask(buyer)
        await buyer.bank.settled(1)
        for _ in range(20):
            seller.sales[-1].receipt(9, (1 << 32) - 1, cost=0, request_digest=os.urandom(32))
        buyer.purse.lanes.doubt(seller.address)
        await buyer.bank.settled(2)
        assert buyer.problems == ["", "an answer for nothing that nobody ordered"], "the others are not looked at"
        [usage] = buyer.lane(seller).payable.usages.values()
        assert (usage.requests, usage.output_tokens) == (1, 4)


async def test_an_executor_whose_connection_broke_is_no_liar_but_is_paid_for_what_arrived_only(tmp_path: Path) -> None:
    async def breaks(sale: Sale) -> None:
        await sale.send(WORD)
        if len(sale.seller.sales) > 1:
            await sale.send(END)
            await sale.stream.finish(Done(9, 1))
            return sale.bill(sale.receipt(9, 1))
        sale.sent.append(WORD)  # it believes that this arrived as well
        sale.receipt(9, 2)
        sale.stream.connection.wire.abort()
        return None

    seller = Seller(breaks)
    async with listening(seller), buying(tmp_path / "ledger.sqlite", seller, closing_seconds=30) as buyer:
        with pytest.raises(RetryElsewhere):
            await ask(buyer)
        place = (seller.address, seller.endpoint, "m")
        buyer.outcomes._records.clear()
        await ask(buyer)
        await buyer.bank.settled(1)
        buyer.purse.lanes.doubt(seller.address)
        await buyer.bank.settled(2)
        assert sorted(buyer.problems)[0] == ""
        assert "another answer than what arrived" in sorted(buyer.problems)[1]
        assert buyer.lies == []
        assert buyer.outcomes.state(place, 0) is not State.BARRED
        assert buyer.lane(seller).payable.accepted == 10 * TOKEN_COST


async def test_an_event_without_end_holds_no_money_and_nobody_up(tmp_path: Path) -> None:
    async def endless(sale: Sale) -> None:
        await sale.send(WORD)
        sale.need(sale.book.best + WINDOW * TOKEN_COST)
        while True:
            await sale.send(b"x" * 65536)

    seller = Seller(endless)
    async with listening(seller), buying(tmp_path / "ledger.sqlite", seller) as buyer:
        with pytest.raises(PeerFault):
            await ask(buyer)
        lane = buyer.lane(seller)
        async with asyncio.timeout(20):
            while lane.purchases:  # noqa: ASYNC110 - no event of asyncio's
                await asyncio.sleep(0.001)
        assert lane.payable.grants == {}
