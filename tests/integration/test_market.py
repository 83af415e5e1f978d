"""A client that pays, at executors that serve: what is promised, what is paid, who waits for what."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from clock_support import leaping
from market_support import (
    END,
    PER_EXECUTOR,
    PRICE,
    TOKEN_COST,
    WINDOW,
    WORD,
    Buyer,
    Sale,
    Seller,
    Serve,
    buying,
    listening,
    well,
)
from payables_support import FakeContract

from lloom.adapters.bridge import Stream
from lloom.core.api.openai import ChatWhole
from lloom.core.billing.receipt import Status
from lloom.core.errors import CallerFault, RetryElsewhere
from lloom.core.identity import checksum
from lloom.core.messages import Done, LaneCall
from lloom.core.offer import Endpoint, ModelOffer, Payment
from lloom.core.payment.voucher import read
from lloom.core.routing.candidate import Choice
from lloom.core.routing.filters import pays_nobody
from lloom.core.settings import PrepaySettings
from tests.unit.adapters.routing_support import SETTINGS as ROUTING
from tests.unit.adapters.routing_support import request


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "ledger.sqlite"


async def ask(buyer: Buyer, **fields: object) -> bytes:
    answer = await buyer.router.ask(request(**fields))
    return b"".join([data async for data in answer])


async def until(holds: object) -> None:
    async with asyncio.timeout(20):
        while not holds():  # type: ignore[operator]  # noqa: ASYNC110 - no event of asyncio's
            await asyncio.sleep(0.001)


async def test_a_request_is_paid_for_before_it_runs_and_accepted_after(path: Path) -> None:
    seller = Seller()
    async with listening(seller), buying(path, seller) as buyer:
        assert await ask(buyer) == WORD * 4 + END
        [sale] = seller.sales
        assert sale.call.chain == 31337
        assert sale.request.max_input_tokens < 2048, "the prompt was counted"
        draw = (sale.request.max_input_tokens + WINDOW) * TOKEN_COST
        assert seller.vouchers[0] == 2 * draw, "this request, and one like it ahead"
        await buyer.bank.settled(1)
        assert (buyer.problems, buyer.lane(seller).payable.accepted) == ([""], 13 * TOKEN_COST)
        entry = await buyer.bank.payables.lane(seller.address)
        assert entry is not None
        assert (entry.accepted, entry.seq) == (13 * TOKEN_COST, 1)


async def test_an_answer_whose_connection_broke_is_paid_once(path: Path) -> None:
    async def serve(sale: Sale) -> None:
        if len(sale.seller.sales) > 1:
            await well(sale)
            return
        await sale.send(WORD, WORD)
        sale.stream.connection.flush()
        sale.stream.connection.wire.abort()

    seller = Seller(serve)
    async with listening(seller), buying(path, seller) as buyer:
        assert await ask(buyer) == WORD * 4 + END
        first, second = seller.sales
        assert (first.digest, first.call, first.body) == (second.digest, second.call, second.body)
        await buyer.bank.settled(1)
        assert (buyer.problems, buyer.lies) == ([""], [])
        assert buyer.lane(seller).payable.accepted == 13 * TOKEN_COST
        assert await ask(buyer) == WORD * 4 + END
        await buyer.bank.settled(2)
        assert buyer.lane(seller).payable.accepted == 26 * TOKEN_COST


async def test_an_executor_that_bills_what_was_lost_with_a_connection_is_no_liar(path: Path) -> None:
    """It has no copy of the answer any more: nobody knows how much of it arrived."""

    async def serve(sale: Sale) -> None:
        if len(sale.seller.sales) > 1:
            raise RetryElsewhere("it is gone", status=409, code="replayed")
        await sale.send(WORD, WORD)
        sale.stream.connection.flush()
        lost.append(sale)
        sale.stream.connection.wire.abort()

    lost: list[Sale] = []
    seller = Seller(serve)
    async with listening(seller), buying(path, seller) as buyer:
        with pytest.raises(RetryElsewhere):
            await ask(buyer)
        [sale] = lost
        sale.sent.append(WORD)
        seller.sales[-1].bill(sale.receipt(9, 3))
        await buyer.bank.settled(1)
        assert buyer.lies == []


async def test_an_idle_lane_gets_a_voucher_that_tells_what_was_accepted(path: Path) -> None:
    seller = Seller()
    async with listening(seller), buying(path, seller) as buyer:
        await ask(buyer)
        await until(lambda: seller.book.voucher is not None and seller.book.voucher.usages)
        voucher = seller.book.voucher
        assert voucher is not None
        assert [(usage.input_tokens, usage.output_tokens, usage.requests) for usage in voucher.usages] == [(9, 4, 1)]
        assert read(voucher).cumulative == seller.vouchers[0], "it promises no more than before"


async def test_a_client_that_stops_says_what_it_accepted(path: Path) -> None:
    seller = Seller()
    async with listening(seller):
        async with buying(path, seller, closing_seconds=30) as buyer:
            await ask(buyer)
        voucher = seller.book.voucher
        assert voucher is not None
        assert voucher.usages[0].requests == 1


async def test_on_a_warm_lane_a_request_waits_for_no_actor_and_no_disk(path: Path) -> None:
    seller = Seller()
    async with listening(seller), buying(path, seller, closing_seconds=30) as buyer:
        await ask(buyer)
        await buyer.bank.settled(1)
        await ask(buyer)
        await buyer.bank.settled(2)
        buyer.bank.gate = asyncio.Event()  # from here on no ceiling is raised
        asked = [each for each in buyer.bank.asked if each != "raise"]
        for _ in range(50):
            await ask(buyer)
        assert len(seller.sales) == 52
        assert seller.lane_calls == 1
        assert asked == ["lane"] == [each for each in buyer.bank.asked if each != "raise"]
        buyer.bank.gate.set()


async def test_a_first_request_waits_until_its_ceiling_is_on_the_disk(path: Path) -> None:
    seller = Seller()
    async with listening(seller), buying(path, seller) as buyer:
        buyer.bank.gate = asyncio.Event()
        asking = asyncio.create_task(ask(buyer))
        await until(lambda: "raise" in buyer.bank.asked)
        assert (seller.sales, seller.vouchers) == ([], [])
        buyer.bank.gate.set()
        await asking
        entry = await buyer.bank.payables.lane(seller.address)
        assert entry is not None
        assert entry.ceiling >= max(seller.vouchers)


async def test_an_answer_longer_than_its_window_is_paid_as_it_arrives(path: Path) -> None:
    words = 24 * WINDOW

    async def serve(sale: Sale) -> None:
        for number in range(words):
            owed = sale.book.charged + (9 + number + 1) * TOKEN_COST
            if owed > sale.book.best:
                sale.need(owed + WINDOW * TOKEN_COST)
                await sale.vouched(owed)
            await sale.send(WORD)
        await sale.send(END)
        await sale.stream.finish(Done(9, words))
        sale.bill(sale.receipt(9, words))

    seller = Seller(serve)
    async with listening(seller), buying(path, seller) as buyer:
        await ask(buyer, max_tokens=words)
        await buyer.bank.settled(1)
        assert buyer.problems == [""]
        assert len(seller.vouchers) < 10 * words // WINDOW, "no voucher for every token"
        assert max(seller.vouchers) <= (9 + words + 8 * WINDOW) * TOKEN_COST * 2


async def test_sixty_four_streams_share_a_lane_while_receipts_and_needs_are_lost_doubled_and_late(path: Path) -> None:
    words, rng = 3 * WINDOW, random.Random(7)
    held: list[object] = []

    async def serve(sale: Sale) -> None:
        for _ in range(words):
            await sale.send(WORD)
            if rng.random() < 0.2:
                sale.need(rng.choice([1, sale.book.charged + 20 * TOKEN_COST, 1 << 100]))
        await sale.send(END)
        await sale.stream.finish(Done(9, words))
        held.append(sale.receipt(9, words))
        if len(held) % 8 == 0:
            rng.shuffle(held)
            lost = held.pop() if len(held) > 5 else None
            sale.bill(*held, *held[:3])  # type: ignore[arg-type]
            assert lost is None or lost in sale.book.receipts
            held.clear()

    seller = Seller(serve)
    prepay = PrepaySettings(per_executor=PER_EXECUTOR, newcomers=4 * PER_EXECUTOR, ahead=1.0)
    async with listening(seller), buying(path, seller, prepay=prepay) as buyer:
        promised: list[int] = []
        control = seller.take

        def take(signed: object) -> None:
            promised.append(read(signed).cumulative - buyer.lane(seller).payable.accepted)  # type: ignore[arg-type]
            control(signed)  # type: ignore[arg-type]

        seller.take = take  # type: ignore[method-assign]
        for _ in range(3):
            await asyncio.gather(*(ask(buyer, max_tokens=words) for _ in range(64)))
        await until(lambda: len(buyer.bank.judged) == 192)  # lost ones are asked for when the lane is idle
        await buyer.bank.settled(192)
        payable = buyer.lane(seller).payable
        assert set(buyer.problems) == {""}
        assert payable.accepted == seller.book.charged == 192 * (9 + words) * TOKEN_COST
        assert (payable.numbering.seq, payable.numbering.gap, payable.grants) == (192, False, {})
        assert max(promised) <= PER_EXECUTOR
        assert payable.signed <= payable.accepted + PER_EXECUTOR
        await until(lambda: seller.book.best >= payable.accepted)


ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
LONG = [{"role": "user", "content": "word " * 300}]
"""A prompt beside which a short answer costs next to nothing."""


async def refuses(_: Sale) -> None:
    raise RetryElsewhere("no memory left", code="backend_failed")


async def blames_the_caller(_: Sale) -> None:
    raise CallerFault("no such parameter", code="invalid_value")


async def ends(sale: Sale) -> None:
    await sale.stream.finish(Done(9, 0))


async def sends_nonsense(sale: Sale) -> None:
    await sale.stream.send(b"data: nonsense\n\n")
    await asyncio.Event().wait()


async def sends_everything_but_content(sale: Sale) -> None:
    for _ in range(1 << 30):
        await sale.stream.send(b": patience\n\n" * 4096)


async def briefly(sale: Sale) -> None:
    """Serves as it should."""
    await well(sale, 1)


FAULTS = (refuses, blames_the_caller, ends, sends_nonsense, sends_everything_but_content)


def failing(fails: Serve, *, honest: bool) -> Serve:
    """Begins an answer, and bills the prompt (unless `honest`) for what `fails` before it has said a word."""

    async def serve(sale: Sale) -> None:
        await sale.send(ROLE)
        status = Status.FAILED if honest else Status.CANCELLED
        try:
            await fails(sale)
        finally:
            inputs = 0 if honest else sale.request.max_input_tokens
            sale.bill(sale.receipt(inputs, 0, status=status))

    return serve


@pytest.mark.parametrize("honest", [True, False], ids=["honest", "billed"])
@pytest.mark.parametrize("fails", FAULTS, ids=[fault.__name__ for fault in FAULTS])
async def test_who_fails_before_the_first_word_is_not_paid_and_the_next_may_cost_all(
    path: Path, fails: Serve, honest: bool
) -> None:
    bad, good = Seller(failing(fails, honest=honest)), Seller(briefly, price=2 * PRICE)
    async with listening(bad, good), buying(path, bad, good, closing_seconds=30) as buyer:
        fields = {"max_tokens": 1, "messages": LONG}
        with contextlib.suppress(CallerFault):
            assert await ask(buyer, **fields) == WORD + END
        lane = buyer.lane(bad)
        await until(lambda: any(each.executor == bad.address for each in buyer.bank.judged))
        assert (lane.payable.accepted, lane.payable.grants, lane.purchases) == (0, {}, {})
        assert lane.payable.left_out == (() if honest else (1,))
        assert bool(buyer.lies) is not honest
        assert [sale.request.max_cost for sale in good.sales] == [
            2 * (sale.request.max_input_tokens + 1) * TOKEN_COST for sale in good.sales
        ]
        assert bool(good.sales) is (fails is not blames_the_caller)


async def test_who_failed_before_the_first_word_holds_no_money(path: Path) -> None:
    async def fails(sale: Sale) -> None:
        await sale.send(ROLE)
        await refuses(sale)

    bad, good = Seller(fails), Seller(price=2 * PRICE)
    async with listening(bad, good), buying(path, bad, good, closing_seconds=30) as buyer:
        await ask(buyer)
        lane = buyer.lane(bad)
        assert (lane.payable.grants, lane.payable.delivered, lane.purchases) == ({}, {}, {})


@pytest.mark.parametrize("breaks", [True, False], ids=["broken off", "stalled"])
async def test_who_is_left_before_the_first_word_is_paid_and_the_next_may_cost_all_the_same(
    path: Path, breaks: bool
) -> None:
    """Nobody can tell whose fault it is: an honest executor bills its work. But that does not use up the request's limit."""
    leap = leaping()

    async def leaves(sale: Sale) -> None:
        await sale.send(ROLE)
        sale.bill(sale.receipt(sale.request.max_input_tokens, 0, status=Status.CANCELLED))
        await until(lambda: any(expected.early for expected in buyer.deliveries._open.values()))
        if breaks:
            sale.stream.connection.wire.abort()
        else:
            leap(3)
        await asyncio.Event().wait()

    bad, good = Seller(leaves), Seller(briefly, price=2 * PRICE)
    hasty = msgspec.structs.replace(ROUTING, first_token_seconds=3)
    async with listening(bad, good), buying(path, bad, good, routing=hasty) as buyer:
        assert await ask(buyer, max_tokens=1, messages=LONG) == WORD + END
        assert buyer.lane(bad).payable.accepted == bad.sales[0].request.max_input_tokens * TOKEN_COST
        assert buyer.lies == []
        [sale] = good.sales
        assert sale.request.max_cost == 2 * (sale.request.max_input_tokens + 1) * TOKEN_COST


async def test_what_an_executor_said_before_it_failed_is_paid_and_the_next_may_cost_less(path: Path) -> None:
    """Unless it may be asked for anew as another request (routing.continuations)."""

    async def breaks(sale: Sale) -> None:
        await sale.send(WORD)
        sale.bill(sale.receipt(9, 1, status=Status.CANCELLED))
        await asyncio.sleep(0)
        raise RetryElsewhere("no memory left", code="backend_failed")

    bad, good = Seller(breaks), Seller(price=2 * PRICE)
    once = msgspec.structs.replace(ROUTING, continuations=0)
    async with listening(bad, good), buying(path, bad, good, routing=once) as buyer:
        answer = await buyer.router.ask(request(max_tokens=100))
        await answer.folded(ChatWhole)
        await buyer.bank.settled(2)
        assert buyer.problems == ["", ""]
        [sale] = good.sales
        whole = 2 * (sale.request.max_input_tokens + 100) * TOKEN_COST
        assert sale.request.max_cost == whole - 10 * TOKEN_COST
        assert (
            2 * (sale.request.max_input_tokens + sale.request.max_output_tokens) * TOKEN_COST <= sale.request.max_cost
        )


class Continuing(Seller):
    """It goes on with what another one began."""

    def _model(self, name: str) -> ModelOffer:
        return msgspec.structs.replace(super()._model(name), features=("prefill",))


@pytest.mark.parametrize("folded", [False, True], ids=["streamed", "plain"])
@pytest.mark.parametrize("when", ["at once", "when cancelled"])
async def test_whoever_goes_on_is_paid_for_a_prompt_too(path: Path, when: str, folded: bool) -> None:
    """However short what is left of the answer, and whether or not the first one's receipt is here."""

    async def breaks(sale: Sale) -> None:
        await sale.send(WORD, WORD, b"data: nonsense\n\n")
        try:
            if when == "when cancelled":
                await asyncio.Event().wait()
        finally:
            sale.bill(sale.receipt(sale.request.max_input_tokens, 2, status=Status.CANCELLED))

    bad, good = Continuing(breaks, price=PRICE), Continuing(price=2 * PRICE)
    async with listening(bad, good), buying(path, bad, good) as buyer:
        messages = [{"role": "user", "content": "word " * 300}]
        answer = await buyer.router.ask(request(max_tokens=20, messages=messages))
        if folded:
            await answer.folded(ChatWhole)
        else:
            assert b"".join([data async for data in answer]).count(b" hello") == 6
        await buyer.bank.settled(2)
        assert buyer.problems == ["", ""]
        first, second = bad.sales[0].request, good.sales[0].request
        assert second.max_output_tokens == 18
        assert first.max_input_tokens < second.max_input_tokens < first.max_input_tokens + 20
        assert second.max_cost == 2 * (second.max_input_tokens + 18) * TOKEN_COST
        for seller in (bad, good):
            payable = buyer.lane(seller).payable
            assert (payable.grants, payable.accepted) == ({}, seller.book.charged)
            assert payable.signed <= payable.accepted + PER_EXECUTOR


async def test_a_caller_that_leaves_while_somebody_goes_on_leaves_no_promise(path: Path) -> None:
    hung = asyncio.Event()

    async def breaks(sale: Sale) -> None:
        await sale.send(WORD)
        raise RetryElsewhere("no memory left", code="backend_failed")

    async def hangs(sale: Sale) -> None:
        hung.set()
        await asyncio.Event().wait()

    bad, other = Continuing(breaks, price=PRICE), Continuing(hangs, price=2 * PRICE)
    async with listening(bad, other), buying(path, bad, other) as buyer:
        answer = await buyer.router.ask(request())
        reading = asyncio.create_task(answer.read())
        await hung.wait()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await answer.close()
        for seller in (bad, other):
            lane = buyer.lane(seller)
            await until(lambda lane=lane: not lane.purchases)
            assert (lane.payable.grants, lane.payable.accepted) == ({}, 0)
            assert not buyer.outcomes.load((seller.address, seller.endpoint, "m"))


async def test_a_caller_that_leaves_while_a_lane_is_opened_leaves_the_lane(path: Path) -> None:
    asked, gate = asyncio.Event(), asyncio.Event()

    class Slow(Seller):
        async def handle(self, stream: Stream) -> None:
            if isinstance(stream.call, LaneCall):
                asked.set()
                await gate.wait()
            await super().handle(stream)

    seller = Slow()
    async with listening(seller), buying(path, seller) as buyer:
        asking = asyncio.create_task(ask(buyer))
        await asked.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert not buyer.outcomes.load((seller.address, seller.endpoint, "m"))
        gate.set()
        await ask(buyer)
        assert (seller.lane_calls, len(seller.sales)) == (1, 1)


async def test_an_answer_without_a_receipt_is_asked_for_once_and_then_holds_no_money(path: Path) -> None:
    async def silent(sale: Sale) -> None:
        await sale.send(WORD, END)
        await sale.stream.finish(Done(9, 1))

    seller = Seller(silent)
    async with listening(seller), buying(path, seller) as buyer:
        await ask(buyer)
        payable = buyer.lane(seller).payable
        assert len(payable.grants) == 1
        await until(lambda: not payable.grants)
        assert (seller.lane_calls, buyer.lane(seller).purchases) == (2, {})
        late = seller.sales[0].receipt(9, 1)
        seller.sales[0].bill(late)
        await buyer.bank.settled(1)
        assert (buyer.problems, payable.accepted) == ([""], 10 * TOKEN_COST)


async def test_free_executors_cost_nothing_and_ask_nobody(path: Path) -> None:
    async def serve(sale: Sale) -> None:
        await sale.send(WORD, END)
        await sale.stream.finish(Done(1, 1))

    seller = Seller(serve, payments=())
    async with listening(seller), buying(path, seller) as buyer:
        await ask(buyer)
        [sale] = seller.sales
        assert (sale.call.chain, sale.call.voucher, sale.request.lane) == (0, None, 0)
        assert sale.request.max_input_tokens == 2048
        assert (buyer.bank.asked, seller.lane_calls, seller.vouchers) == ([], 0, [])


async def for_nothing(sale: Sale) -> None:
    await sale.send(WORD, END)
    await sale.stream.finish(Done(1, 1))


@pytest.mark.parametrize("attempts", [1, 3])
async def test_where_the_budget_is_spent_who_costs_nothing_is_asked_however_many_come_before(
    path: Path, attempts: int
) -> None:
    dear, free = [Seller() for _ in range(attempts + 1)], Seller(for_nothing, price=2 * PRICE, payments=())
    routing = msgspec.structs.replace(ROUTING, attempts=attempts)
    async with listening(*dear, free), buying(path, *dear, free, routing=routing, budget=10) as buyer:
        assert await ask(buyer) == WORD + END
        assert (sum(each.lane_calls for each in dear), [each.sales for each in dear]) == (1, [[]] * len(dear))


async def test_where_the_budget_is_spent_who_costs_nothing_is_waited_for(path: Path) -> None:
    gate = asyncio.Event()

    async def slowly(sale: Sale) -> None:
        await sale.send(WORD)
        await gate.wait()
        await for_nothing(sale)

    class Small(Seller):
        def _model(self, name: str) -> ModelOffer:
            return msgspec.structs.replace(super()._model(name), parallel=1)

    dear = [Seller() for _ in range(ROUTING.attempts + 2)]
    free = Small(slowly, price=2 * PRICE, payments=())
    routing = msgspec.structs.replace(ROUTING, queue=4)
    async with listening(*dear, free), buying(path, *dear, free, routing=routing, budget=10) as buyer:
        first = await buyer.router.ask(request())
        second = asyncio.create_task(ask(buyer))
        await until(lambda: len(buyer.router.finder.waiting) == 1)
        gate.set()
        async for _ in first:
            pass
        assert await second == WORD + WORD + END
        assert len(free.sales) == 2
        assert sum(each.lane_calls for each in dear) <= 2


async def test_who_waits_for_one_that_costs_nothing_holds_up_nobody_who_would_pay(path: Path) -> None:
    dear, free = Seller(), Seller(payments=())
    routing = msgspec.structs.replace(ROUTING, queue=4)
    async with listening(dear, free), buying(path, dear, free, routing=routing) as buyer:
        loop, places = asyncio.get_running_loop(), [(each.address, each.endpoint, "m") for each in (dear, free)]
        for place in places * dear.offer.models[0].parallel:
            buyer.outcomes.began(place)
        sparing, paying = [await buyer.router.finder.find("m", loop.time() + 60) for _ in range(2)]
        assert (sparing.spare(), sparing.spare()) == (True, False)
        waits = [asyncio.create_task(options.choose(request(), ())) for options in (sparing, paying)]
        await until(lambda: len(buyer.router.finder.waiting) == 2)
        for place, served in zip(places, reversed(waits), strict=True):
            buyer.outcomes.ended(place)
            await until(served.done)
            chosen = await served
            assert isinstance(chosen, Choice)
            assert chosen.candidate.place == place


async def test_one_that_costs_nothing_and_has_moved_is_asked_before_those_that_do(path: Path) -> None:
    dear, free = Seller(), Seller(payments=())
    routing = msgspec.structs.replace(
        ROUTING, policy="pinned", executors=(checksum(dear.address), checksum(free.address))
    )
    async with listening(dear, free), buying(path, dear, free, routing=routing) as buyer:
        options = await buyer.router.finder.find("m", asyncio.get_running_loop().time() + 60)
        (known,) = options.offered
        gone = [replace(each, endpoint=Endpoint("127.0.0.1", 1)) for each in known.candidates]
        options.offered = [msgspec.structs.replace(known, candidates=gone)]
        assert options.spare()
        await options.anew()
        chosen = await options.choose(request(), [each.place for each in gone])
        assert isinstance(chosen, Choice)
        assert chosen.candidate.place == (free.address, free.endpoint, "m")


async def test_where_nobody_is_left_who_costs_nothing_others_are_tried(path: Path) -> None:
    async def fails(_: Sale) -> None:
        raise RetryElsewhere("no memory left", code="backend_failed")

    dear, cheap, free = Seller(price=9 * PRICE), Seller(), Seller(fails, payments=())
    order = tuple(checksum(each.address) for each in (dear, cheap, free))
    routing = msgspec.structs.replace(ROUTING, policy="pinned", executors=order)
    prepay = PrepaySettings(per_executor=100 * TOKEN_COST, newcomers=1000 * TOKEN_COST, ahead=1.0)
    async with (
        listening(dear, cheap, free),
        buying(path, dear, cheap, free, routing=routing, prepay=prepay) as buyer,
    ):
        answer = await buyer.router.ask(request())
        async for _ in answer:
            pass
        assert (answer.executor, answer.attempts) == (cheap.address, 3)
        assert (dear.sales, len(free.sales)) == ([], 1)


# --- what the caller is told


async def refused(buyer: Buyer, **fields: object) -> RetryElsewhere:
    with pytest.raises(RetryElsewhere) as caught:
        await ask(buyer, **fields)
    return caught.value


async def test_a_node_without_a_chain_is_told_what_to_do(path: Path) -> None:
    seller = Seller()
    async with listening(seller), buying(path, seller, problem=pays_nobody) as buyer:
        error = await refused(buyer)
        assert (error.status, error.code) == (402, "payment_required")
        assert "chain=…" in str(error)
        assert seller.sales == []


async def test_a_node_that_has_paid_nothing_in_is_told_what_to_do(path: Path) -> None:
    seller = Seller()
    async with listening(seller), buying(path, seller, contract=FakeContract(available=0)) as buyer:
        error = await refused(buyer)
        assert (error.status, error.code) == (402, "payment_required")
        assert "command=deposit" in str(error)


async def test_a_deposit_too_small_is_no_fault_of_the_executors(path: Path) -> None:
    seller = Seller()
    async with listening(seller), buying(path, seller, contract=FakeContract(available=10)) as buyer:
        error = await refused(buyer)
        assert (error.status, error.code) == (402, "no_funds")
        assert "command=deposit" in str(error)
        assert buyer.outcomes.standing((seller.address, seller.endpoint, "m"), 0).evidence == 0


async def test_the_budget_is_named(path: Path) -> None:
    seller = Seller()
    async with listening(seller), buying(path, seller, budget=10) as buyer:
        error = await refused(buyer)
        assert (error.status, error.code) == (402, "budget")
        assert "accounting.budget" in str(error)


async def test_a_request_larger_than_the_prepayment_is_named(path: Path) -> None:
    seller = Seller()
    prepay = PrepaySettings(per_executor=10, newcomers=100, ahead=1.0)
    async with listening(seller), buying(path, seller, prepay=prepay) as buyer:
        error = await refused(buyer)
        assert (error.status, error.code) == (402, "prepay_limit")
        assert "accounting.prepay.per_executor" in str(error)
        assert seller.sales == []


async def test_a_price_over_the_callers_limit_is_named(path: Path) -> None:
    seller = Seller()
    limits = msgspec.structs.replace(ROUTING, max_input_price=PRICE, max_output_price=PRICE - 1)
    async with listening(seller), buying(path, seller, routing=limits) as buyer:
        error = await refused(buyer)
        assert (error.status, error.code) == (402, "price")
        assert "routing.max_output_price" in str(error)


@pytest.mark.parametrize(
    ("payment", "word"),
    [
        (Payment(1, b"\xc0" * 20, bytes(20), 10**6), "eip155:1,"),
        (Payment(31337, b"\xc1" * 20, bytes(20), 10**6), "another contract"),
        (Payment(31337, b"\xc0" * 20, b"\x01" * 20, 10**6), "another token"),
    ],
)
async def test_an_executor_that_is_paid_elsewhere_is_not_asked(path: Path, payment: Payment, word: str) -> None:
    seller = Seller(payments=(payment,))
    async with listening(seller), buying(path, seller) as buyer:
        error = await refused(buyer)
        assert error.code == "payment_required"
        assert word in str(error)
        assert seller.sales == []


async def test_where_one_cannot_be_paid_another_is_asked(path: Path) -> None:
    foreign = Seller(payments=(Payment(1, b"\xc0" * 20, bytes(20), 10**6),))
    free = Seller(price=2 * PRICE)
    async with listening(foreign, free), buying(path, foreign, free) as buyer:
        assert await ask(buyer) == WORD * 4 + END
        assert (len(free.sales), foreign.sales) == (1, [])
