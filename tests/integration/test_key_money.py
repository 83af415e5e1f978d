"""What the keys of a gateway may spend: held when an order leaves, settled by its receipt, over a real bridge and journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from market_support import END, PRICE, TOKEN_COST, WORD, Buyer, Sale, Seller, buying, listening, well
from msgspec.structs import replace

from lloom.adapters.routing.answer import Answer
from lloom.adapters.routing.pockets import Pockets
from lloom.core.api.openai import ChatWhole
from lloom.core.billing.receipt import Status
from lloom.core.errors import RetryElsewhere
from lloom.core.messages import Done
from lloom.core.pocket import Pocket
from lloom.core.settings import GatewayKey
from tests.unit.adapters.routing_support import SETTINGS as ROUTING
from tests.unit.adapters.routing_support import request

COST = 13 * TOKEN_COST
"""Of an answer of four words to a prompt that is billed as nine tokens."""


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "ledger.sqlite"


class Book:
    """What was spent, and what one key may spend."""

    def __init__(self, **terms: int) -> None:
        self.rows: list[tuple[str, str, int, int]] = []
        self.pockets = Pockets([Pocket("alice", GatewayKey(sha256="0" * 64, **terms), {})], self._told)
        self._more = asyncio.Event()

    def _told(self, *row: Any) -> None:
        self.rows.append(row)
        self._more.set()

    @property
    def held(self) -> int:
        """What is set aside."""
        return sum(budget._reserved for budget in self.pockets._pockets["alice"]._budgets.values())

    async def total(self, rows: int) -> int:
        """What is spent once it was told so often."""
        while len(self.rows) < rows:
            self._more.clear()
            await self._more.wait()
        assert {(name, unit) for name, unit, _, _ in self.rows} == {("alice", f"eip155:31337/0x{'0' * 40}")}
        assert len(self.rows) == rows
        return self.rows[-1][3]


@asynccontextmanager
async def market(path: Path, book: Book, *sellers: Seller, **changes: Any) -> AsyncIterator[Buyer]:
    async with listening(*sellers), buying(path, *sellers, pockets=book.pockets, **changes) as buyer:
        yield buyer
    assert book.held == 0


async def begun(buyer: Buyer, **fields: Any) -> Answer:
    return await buyer.router.ask(replace(request(**{"max_tokens": 10, **fields}), caller="alice"))


async def ask(buyer: Buyer, **fields: Any) -> bytes:
    return b"".join([data async for data in await begun(buyer, **fields)])


async def refused(buyer: Buyer, **fields: Any) -> RetryElsewhere:
    with pytest.raises(RetryElsewhere) as caught:
        await begun(buyer, **fields)
    assert (caught.value.status, caught.value.code) == (429, "insufficient_quota")
    return caught.value


async def for_nothing(sale: Sale) -> None:
    await sale.send(WORD, END)
    await sale.stream.finish(Done(1, 1))


def most(seller: Seller, number: int = 0) -> int:
    return seller.sales[number].request.max_cost


async def test_a_request_costs_its_key_what_its_receipt_says(path: Path) -> None:
    book, seller = Book(), Seller()
    async with market(path, book, seller) as buyer:
        await ask(buyer)
        assert await book.total(1) == COST
        await ask(buyer)
        assert await book.total(2) == 2 * COST
        async for _ in await buyer.router.ask(request(max_tokens=10)):  # the owner's, without a key
            pass
        await buyer.bank.settled(3)
        assert await book.total(2) == 2 * COST


async def test_a_budget_is_never_exceeded_however_many_ask_at_once(path: Path) -> None:
    gate = asyncio.Event()

    async def waits(sale: Sale) -> None:
        await sale.send(WORD)
        await gate.wait()
        await well(sale, 9)

    seller = Seller(waits)
    probe = Seller()
    async with market(path, Book(), probe) as buyer:
        await ask(buyer)
        await buyer.bank.settled(1)
    whole = most(probe)
    book = Book(money_per_day=3 * whole + whole // 2)
    async with market(path.with_name("other"), book, seller) as buyer:
        answers = [await begun(buyer) for _ in range(3)]
        error = await refused(buyer)
        assert (error.retry_after, "money_per_day" in str(error)) == (1, True)
        gate.set()
        for answer in answers:
            await answer.folded(ChatWhole)
        spent = await book.total(3)
        assert spent <= 3 * whole
        while book.held + spent + whole <= 3 * whole + whole // 2:
            before = len(book.rows)
            await ask(buyer)
            spent = await book.total(before + 1)
        error = await refused(buyer)
        assert error.retry_after is not None
        assert error.retry_after > 1


async def test_what_a_request_may_not_cost_is_told_before_anybody_is_asked(path: Path) -> None:
    book, seller = Book(money_per_month=10 * TOKEN_COST), Seller()
    async with market(path, book, seller) as buyer:
        error = await refused(buyer)
        assert "money_per_month" in str(error)
        assert error.retry_after is None
        assert (seller.sales, buyer.lane(seller).payable.grants) == ([], {})
        assert buyer.outcomes.standing((seller.address, seller.endpoint, "m"), 0).evidence == 0
        assert not buyer.outcomes.load((seller.address, seller.endpoint, "m"))


async def test_what_the_node_itself_may_not_spend_is_not_held(path: Path) -> None:
    async with market(path, Book(), Seller(), budget=10) as buyer:
        with pytest.raises(RetryElsewhere, match=r"accounting\.budget"):
            await begun(buyer)


@pytest.mark.parametrize(("limit", "bothered"), [(0, 0), (2 * TOKEN_COST - 1, 0), (2 * TOKEN_COST, 1)])
async def test_who_costs_nothing_is_asked_where_money_lacks(path: Path, limit: int, bothered: int) -> None:
    """However many others come before it. Where a key can pay none of these whatever it asks, they are not even dialled."""
    book, dear = Book(money_per_day=limit), [Seller() for _ in range(ROUTING.attempts + 1)]
    free = Seller(for_nothing, price=2 * PRICE, payments=())
    async with market(path, book, *dear, free) as buyer:
        answer = await begun(buyer)
        assert b"".join([data async for data in answer]) == WORD + END
        assert answer.attempts == 1 + bothered
        for _ in range(3):
            assert await ask(buyer) == WORD + END
        assert ([each.sales for each in dear], len(free.sales), book.rows) == ([[]] * len(dear), 4, [])
        assert (sum(each.lane_calls for each in dear) > 0) == bool(bothered)


async def test_a_key_whose_money_is_spent_is_told_when_it_has_more_and_whom_it_cannot_pay(path: Path) -> None:
    book, dear = Book(money_per_day=COST), Seller()
    async with market(path, book, dear) as buyer:
        coin = buyer.purse._coin
        bill = book.pockets.hold("alice", coin, COST)
        assert bill is not None
        bill.settle(COST)
        error = await refused(buyer)
        assert "1 that costs more than is left to this key on anvil (money_per_day: 13000)" in str(error)
        assert error.retry_after is not None
        assert error.retry_after > 1
        [told] = await buyer.router.explain(replace(request(), caller="alice"))
        assert (told.verdict, "money_per_day" in told.reason) == ("left out", True)
        [told] = await buyer.router.explain(request())
        assert told.verdict == "newcomer"
        assert dear.lane_calls == 0


async def test_attempts_add_up(path: Path) -> None:
    async def breaks(sale: Sale) -> None:
        await sale.send(WORD, WORD, b"data: nonsense\n\n")
        sale.bill(sale.receipt(9, 2, status=Status.CANCELLED))

    book, bad, good = Book(), Seller(breaks, price=PRICE), Seller(price=2 * PRICE)
    async with market(path, book, bad, good) as buyer:
        await (await begun(buyer)).folded(ChatWhole)
        assert await book.total(2) == 11 * TOKEN_COST + 2 * COST


async def test_an_attempt_that_fails_costs_nothing_and_holds_nothing(path: Path) -> None:
    async def fails(_: Sale) -> None:
        raise RetryElsewhere("no memory left", code="backend_failed")

    async def breaks(sale: Sale) -> None:
        await sale.send(WORD)
        sale.bill(sale.receipt(0, 0, cost=0, status=Status.FAILED))
        raise RetryElsewhere("no memory left", code="backend_failed")

    async def says_nothing(sale: Sale) -> None:
        await sale.send(b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n')
        raise RetryElsewhere("no memory left", code="backend_failed")

    for number, serve in enumerate((fails, breaks, says_nothing)):
        book, bad, good = Book(), Seller(serve, price=PRICE), Seller(price=PRICE + 1)
        async with market(path.with_name(str(number)), book, bad, good) as buyer:
            await (await begun(buyer)).folded(ChatWhole)
            assert await book.total(1) == COST + 1
            await buyer.bank.settled(1 + (serve is breaks))
            assert (len(bad.sales), book.held) == (1, 0)


@pytest.mark.parametrize("late", [False, True])
async def test_without_a_receipt_what_has_arrived_is_counted_once(path: Path, late: bool) -> None:
    async def silent(sale: Sale) -> None:
        await sale.send(WORD, END)
        await sale.stream.finish(Done(9, 1))

    book, seller = Book(), Seller(silent)
    async with market(path, book, seller) as buyer:
        await ask(buyer)
        spent = await book.total(1)
        assert 1 * TOKEN_COST < spent <= (seller.sales[0].request.max_input_tokens + 1) * TOKEN_COST
        if late:
            seller.sales[0].bill(seller.sales[0].receipt(9, 1))
            await buyer.bank.settled(1)
        assert await book.total(1) == spent


async def test_a_false_receipt_costs_a_key_no_more_than_what_has_arrived(path: Path) -> None:
    async def lies(sale: Sale) -> None:
        await sale.send(WORD, END)
        await sale.stream.finish(Done(9, 10))
        sale.bill(sale.receipt(sale.request.max_input_tokens, 10))

    book, seller = Book(), Seller(lies)
    async with market(path, book, seller) as buyer:
        await ask(buyer)
        assert await book.total(1) <= (seller.sales[0].request.max_input_tokens + 1) * TOKEN_COST
        await buyer.bank.settled(1)
        assert buyer.problems != [""]


async def test_a_node_that_stops_counts_what_no_receipt_came_for(path: Path) -> None:
    async def silent(sale: Sale) -> None:
        await sale.send(WORD, END)
        await sale.stream.finish(Done(9, 1))

    book, seller = Book(), Seller(silent)
    async with market(path, book, seller, closing_seconds=60) as buyer:
        await ask(buyer)
        assert book.rows == []
    assert len(book.rows) == 1


async def test_who_leaves_pays_for_what_came_and_frees_the_rest(path: Path) -> None:
    async def waits(sale: Sale) -> None:
        await sale.send(WORD)
        try:
            await asyncio.Event().wait()
        finally:
            sale.bill(sale.receipt(9, 1, status=Status.CANCELLED))

    book, seller = Book(), Seller(waits)
    async with market(path, book, seller) as buyer:
        answer = await begun(buyer)
        assert book.held == most(seller)
        await answer.close()
        assert book.held < most(seller), "no more than what has arrived can be charged"
        assert await book.total(1) == 10 * TOKEN_COST
