"""A Worker's till: who is covered goes on at once, who is not waits for one answer, and nothing is spent that was not granted."""

from __future__ import annotations

import asyncio

import pytest
from till_support import CLIENT, EXECUTOR, HOLDER, LANE, TOKEN, WINDOW, FakeConnection, counter, price, signed

from lloom.adapters.serving import reports, shelf
from lloom.adapters.serving import tab as tabs
from lloom.adapters.serving import till as tills
from lloom.adapters.serving.tab import Price, Unpaid
from lloom.core.billing.lane import Lane
from lloom.core.billing.request import Request
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import Identity, NodeId
from lloom.core.messages import Need, SignedVoucher, amount
from lloom.core.payment import receivable
from lloom.core.payment.receivable import Ask, Holder, Means
from tests.unit.actors.actor_support import turns, until


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "RETRY_SECONDS", 0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that wait for money which does not come give up soon."""
    monkeypatch.setattr(tills, "LEDGER_SECONDS", 0.05)


async def test_a_lanes_first_request_waits_for_its_voucher_to_be_on_the_disk() -> None:
    async with counter() as it:
        it.desk.there.clear()
        first = asyncio.create_task(it.open(voucher=50, inputs=20))
        await turns()
        assert not first.done()
        it.desk.there.set()
        await first
        assert it.free == 50 - 20 - WINDOW


async def test_on_a_warm_lane_a_request_waits_for_nobody_and_its_voucher_goes_behind_it() -> None:
    async with counter() as it:
        await it.open(voucher=100)
        it.desk.there.clear()
        opening = it.open(voucher=200)
        with pytest.raises(StopIteration):
            opening.send(None)  # it is done without waiting for anything
        assert it.desk.calls == 1
        assert it.free == 100 - 2 * WINDOW
        it.desk.there.set()
        await it.till.close()
        assert it.desk.states[LANE].vouched == 200


async def test_a_raise_is_reported_at_once_when_the_next_request_would_have_to_wait() -> None:
    async with counter() as it:
        await it.open(voucher=25)
        await it.open(voucher=60)
        await until(lambda: it.desk.states[LANE].vouched == 60)
        assert it.free == 40


async def test_a_raise_is_reported_before_what_there_was_is_used_up() -> None:
    async with counter() as it:
        await it.open(voucher=100)
        it.till.take(CLIENT.address, signed(200))
        await it.open()
        assert (it.free, it.desk.calls) == (80, 1)
        await it.open()
        await until(lambda: it.desk.states[LANE].vouched == 200)


async def test_who_has_not_paid_is_told_what_it_takes() -> None:
    async with counter() as it:
        with pytest.raises(RetryElsewhere, match=r"voucher of 30 on its lane, 5 more") as refused:
            await it.open(voucher=25, inputs=20)
        assert (refused.value.status, refused.value.code) == (402, "payment_required")
        assert type(refused.value) is RetryElsewhere
        assert it.till._shelf.slices[LANE].used == 0


async def test_without_a_voucher_nothing_begins_and_nothing_is_kept() -> None:
    async with counter() as it:
        for _ in range(3):
            with pytest.raises(RetryElsewhere, match="needs a voucher of 10"):
                await it.open()
        assert it.till._shelf.slices == {}
        assert not it.till._shelf._lanes


@pytest.mark.parametrize("means", [Means(5, 100), Means(100, 5)])
async def test_who_has_no_money_is_told_so(means: Means) -> None:
    async with counter() as it:
        it.desk.means = means
        with pytest.raises(RetryElsewhere, match="deposit does not cover") as refused:
            await it.open(voucher=1000)
        assert refused.value.code == "payment_required"


async def test_sixty_four_requests_on_one_lane_share_calls_and_all_begin() -> None:
    async with counter() as it:
        opened = await asyncio.gather(*(it.open(voucher=(n + 1) * (5 + WINDOW), inputs=5) for n in range(64)))
        assert len(opened) == 64
        assert it.desk.calls <= 2
        assert it.free == 0
        for tab in opened:
            tab.close(7)
        assert it.free == 64 * (5 + WINDOW - 7)


@pytest.mark.usefixtures("impatient")
async def test_of_many_those_begin_that_are_covered() -> None:
    async with counter() as it:
        opened = await asyncio.gather(*(it.open(voucher=35) for _ in range(10)), return_exceptions=True)
        assert [isinstance(each, RetryElsewhere) for each in opened] == [False] * 3 + [True] * 7


async def test_a_request_that_running_answers_have_overtaken_waits_for_the_voucher_it_needs() -> None:
    async with counter() as it:
        running = await it.open(voucher=10)
        assert not running.covers(200), "it takes all there is"
        late = asyncio.create_task(it.open(voucher=30, inputs=10))
        await until(lambda: any(isinstance(told, Need) for told in it.connection.told))
        assert not late.done()
        it.till.take(NodeId(CLIENT.address), signed(500))
        (await late).close()
        running.close()


async def test_who_waits_in_vain_is_told_what_it_takes_when_nothing_runs_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tills, "LEDGER_SECONDS", 3600)
    async with counter() as it:
        running = await it.open(voucher=10)
        late = asyncio.create_task(it.open(inputs=20))
        await until(lambda: any(isinstance(told, Need) for told in it.connection.told))
        running.close(10)
        with pytest.raises(RetryElsewhere, match="needs a voucher of 40"):
            await late


async def test_what_a_request_did_not_cost_is_there_for_others_and_what_it_did_is_gone() -> None:
    async with counter() as it:
        tab = await it.open(voucher=100, inputs=20)
        tab.close(25)
        tab.close()  # the first one counts
        assert (it.free, it.till._shelf.slices[LANE].unbilled) == (75, 1)
        it.till.issued([LANE])
        assert it.till._shelf.slices[LANE].unbilled == 0
        (await it.open(inputs=5)).close()
        assert it.free == 75


async def test_a_request_that_turned_out_dearer_than_what_was_drawn_is_made_up_for() -> None:
    async with counter() as it:
        (await it.open(voucher=30, inputs=20)).close(45)
        assert it.free == -15
        it.desk.states[LANE] = receivable.charged(it.desk.states[LANE], HOLDER, 45)
        with pytest.raises(RetryElsewhere, match="voucher of 55"):
            await it.open(voucher=54)
        await it.open(voucher=55)


async def test_an_answer_draws_window_by_window() -> None:
    async with counter() as it:
        tab = await it.open(voucher=100, inputs=20)
        assert tab.covers(4)
        assert it.free == 70
        assert tab.covers(5)  # half a window is left: the next is drawn
        assert it.free == 60


async def test_what_it_may_amount_to_has_to_be_covered_and_what_it_does_is_drawn_ahead() -> None:
    async with counter() as it:
        tab = await it.open(voucher=100, inputs=20)
        assert tab.covers(4, WINDOW)
        assert not tab.covers(4, WINDOW + 1)
        assert it.free == 70


async def test_where_all_is_drawn_that_it_may_cost_nothing_has_to_be_counted() -> None:
    async with counter() as it:
        short = await it.open(voucher=100, inputs=20, outputs=WINDOW)
        long = await it.open(voucher=100, inputs=20, outputs=WINDOW + 1)
        assert (short.whole, long.whole) == (True, False)
        assert long.covers(WINDOW)
        assert long.whole


async def test_an_answer_that_grows_by_more_than_a_window_draws_all_it_needs() -> None:
    async with counter() as it:
        tab = await it.open(voucher=100, inputs=20)
        assert tab.covers(60)
        assert it.free == 100 - 20 - 60 - WINDOW


async def test_an_answer_never_draws_more_than_it_may_cost() -> None:
    async with counter() as it:
        tab = await it.open(voucher=100, inputs=20, outputs=13)
        assert all(tab.covers(count) for count in range(20))
        assert it.free == 100 - 33
        assert not it.connection.told


async def test_the_client_is_told_what_is_needed_before_an_answer_has_to_wait() -> None:
    async with counter() as it:
        tab = await it.open(voucher=30, inputs=20)
        assert tab.covers(5)
        await until(lambda: len(it.connection.told) == 1)
        (need,) = it.connection.told
        assert isinstance(need, Need)
        assert (need.chain, need.token, need.lane) == (31337, TOKEN, 0)
        assert amount(need.cumulative) == 40
        calls = it.desk.calls
        for outputs in range(5, 10):  # it is not told again, nor is the ledger asked
            assert tab.covers(outputs)
            await turns()
        assert (it.desk.calls, len(it.connection.told)) == (calls, 1)
        assert not tab.covers(11)
        it.till.take(CLIENT.address, signed(40))
        await tab.credit(20)
        assert it.free == 0


async def test_a_part_of_what_is_needed_lets_an_answer_go_on_a_part_of_the_way() -> None:
    async with counter() as it:
        tab = await it.open(voucher=30, inputs=20)
        tab.covers(10)
        await until(lambda: bool(it.connection.told))
        it.till.take(CLIENT.address, signed(33))
        await tab.credit(13)
        assert not tab.covers(14)


async def test_an_answer_that_nobody_pays_is_ended() -> None:
    async with counter(credit_seconds=0.01) as it:
        tab = await it.open(voucher=30, inputs=20)
        assert not tab.covers(11)
        with pytest.raises(Unpaid) as ended:
            await tab.credit(11)
        assert (ended.value.status, ended.value.code) == (402, "payment_required")
        tab.close(30)
        assert not it.till._shelf.slices[LANE].short


async def test_an_answer_that_waits_asks_again_for_what_others_gave_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabs, "AGAIN_SECONDS", 0.001)
    other = Holder("executor-worker-1", b"b")
    async with counter() as it:
        tab = await it.open(voucher=30, inputs=20)
        state = receivable.vouched(it.desk.states[LANE], 60)
        it.desk.states[LANE] = state
        it.desk.one(Ask(lane=LANE, number=1, least=30), other)
        assert not tab.covers(11)
        await until(lambda: bool(it.connection.told))
        it.desk.one(Ask(lane=LANE, number=2, back=True), other)
        await tab.credit(11)


async def test_what_one_answer_leaves_another_that_waits_gets_at_once() -> None:
    async with counter() as it:
        first, second = await it.open(voucher=20), await it.open()
        assert not second.covers(11)
        waiting = asyncio.create_task(second.credit(11))
        await until(lambda: bool(it.connection.told))
        first.close(3)
        await waiting


@pytest.mark.usefixtures("impatient")
async def test_what_one_answer_leaves_goes_to_those_that_wait_without_the_ledger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tabs, "AGAIN_SECONDS", 3600)
    async with counter() as it:
        first, second, third = [await it.open(voucher=3 * WINDOW) for _ in range(3)]
        it.desk.there.clear()
        waiting = asyncio.create_task(second.credit(2 * WINDOW))
        await turns()
        assert not waiting.done()
        first.close(0)
        await waiting
        beginning = asyncio.create_task(it.open())
        await turns()
        assert not beginning.done()
        second.close(0)
        (await beginning).close()
        third.close()


async def test_a_small_request_does_not_overtake_a_large_one_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async with counter() as it:
        await it.open(voucher=40)
        it.desk.there.clear()
        large = asyncio.create_task(it.open(voucher=70, inputs=50))
        await until(lambda: it.desk.calls == 2)
        monkeypatch.setattr(tills, "LEDGER_SECONDS", 1.0)
        small = asyncio.create_task(it.open())
        await turns()
        assert not small.done()
        it.desk.there.set()
        await large
        with pytest.raises(RetryElsewhere, match="voucher of 80"):
            await small


@pytest.mark.usefixtures("impatient")
async def test_answers_that_run_come_before_those_that_have_not_begun() -> None:
    async with counter() as it:
        running = await it.open(voucher=10)
        running.covers(10)
        await until(lambda: bool(it.connection.told))
        with pytest.raises(RetryElsewhere, match="voucher of 30"):
            await it.open(voucher=25)
        assert running.covers(20)


@pytest.mark.parametrize("lower", [49, 50])
async def test_a_voucher_that_is_no_better_is_not_even_looked_at(lower: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with counter() as it:
        await it.open(voucher=50)
        monkeypatch.setattr(tills, "check", None)
        it.till.take(CLIENT.address, signed(lower))
        assert it.till._shelf.slices[LANE].voucher is None


async def test_of_equal_vouchers_the_one_with_more_usage_goes_to_the_ledger() -> None:
    async with counter() as it:
        await it.open(voucher=50)
        it.till.take(CLIENT.address, signed(50, requests=1))
        await it.till.close()
        voucher = it.desk.asks[-1].voucher
        assert voucher is not None
        assert len(voucher.usages) == 1


def forged() -> list[SignedVoucher]:
    good = signed(50)
    return [
        signed(50, by=Identity.generate()),
        signed(50, executor=Identity.generate()),
        signed(50, Lane(EXECUTOR.address, TOKEN, 0), by=EXECUTOR),
        SignedVoucher(good.voucher, bytes(65)),
        SignedVoucher(b"", good.signature),
        SignedVoucher(good.voucher, good.signature, signed(1, requests=1).usages),
    ]


@pytest.mark.parametrize("voucher", forged())
async def test_garbage_is_the_peers_fault_and_leaves_nothing(voucher: SignedVoucher) -> None:
    async with counter() as it:
        with pytest.raises(PeerFault):
            it.till.take(CLIENT.address, voucher)
        assert it.till._shelf.slices == {}


async def test_nobody_takes_all_the_room_with_lanes() -> None:
    async with counter() as it:
        for number in range(shelf.MAX_LANES):
            await it.open(voucher=10, lane=Lane(CLIENT.address, TOKEN, number))
        with pytest.raises(RetryElsewhere) as refused:
            await it.open(voucher=10, lane=Lane(CLIENT.address, TOKEN, shelf.MAX_LANES))
        assert (refused.value.status, refused.value.code) == (429, "too_many_lanes")


async def test_a_lane_that_nobody_uses_is_given_back_and_can_be_used_again() -> None:
    async with counter() as it:
        tab = await it.open(voucher=100)
        it.till.tidy(float("inf"))
        await turns()
        assert it.free == 90  # it is in use
        tab.close(5)
        it.till.tidy(float("inf"))
        it.till._reports._urgent.set()
        await turns()
        assert it.free == 95  # its receipt is not issued
        it.desk.states[LANE] = receivable.charged(it.desk.states[LANE], HOLDER, 5)
        it.till.issued([LANE])
        it.till.tidy(float("inf"))
        it.till._reports._urgent.set()
        await until(lambda: not it.till._shelf.slices)
        assert it.desk.states[LANE].lease(HOLDER).open == 0
        await it.open()
        assert it.free == 85


async def test_what_another_worker_needs_is_given_back_but_for_what_is_drawn() -> None:
    async with counter() as it:
        tab = await it.open(voucher=100)
        (ask,) = it.till.recall([LANE])
        assert (ask.used, ask.back) == (10, True)
        it.desk.one(ask)
        assert it.desk.states[LANE].lease(HOLDER).open == 10
        assert it.free == 0
        tab.close(4)
        assert it.free == 6


async def test_who_has_nothing_to_give_back_says_nothing() -> None:
    async with counter() as it:
        await it.open(voucher=10)
        assert it.till.recall([LANE]) == []


async def test_a_lane_that_was_forgotten_keeps_what_is_waited_for_beyond_what_it_spent() -> None:
    async with counter() as it:
        it.desk.one(Ask(lane=LANE, number=0, used=40))
        it.desk.states[LANE] = receivable.charged(it.desk.states[LANE], HOLDER, 40)
        it.desk.there.clear()
        opening = asyncio.create_task(it.open(voucher=100))
        await until(lambda: it.desk.calls == 1)
        (recall,) = it.till.recall([LANE])
        it.desk.one(recall)
        it.desk.there.set()
        await opening
        assert (it.desk.calls, it.free) == (1, 0)
        assert it.desk.states[LANE].lease(HOLDER).granted == it.till._shelf.slices[LANE].granted == 40 + WINDOW


@pytest.mark.parametrize("warm", [True, False])
async def test_of_an_answer_that_a_recall_has_overtaken_only_what_is_waited_for_is_spent(warm: bool) -> None:
    async with counter() as it:
        if warm:
            await it.open(voucher=10)
        calls, asks = it.desk.calls, len(it.desk.asks)
        it.desk.there.clear()
        opening = asyncio.create_task(it.open(voucher=100))
        await until(lambda: it.desk.calls == calls + 1)
        (recall,) = it.till.recall([LANE])
        it.desk.there.set()
        await until(lambda: len(it.desk.asks) == asks + 1)  # all is granted already
        it.desk.one(recall)
        await opening
        assert it.free == 0
        assert it.till._shelf.slices[LANE].granted == it.desk.states[LANE].lease(HOLDER).granted == WINDOW * (1 + warm)
        assert it.desk.calls == calls + 1
        assert [ask.back for ask in it.till.recall([LANE])] == [True]  # what was given back may have got lost
        assert it.till.recall([LANE]) == []


async def test_what_came_to_wait_after_the_ledger_was_asked_keeps_nothing_from_others() -> None:
    async with counter() as it:
        await it.open(voucher=10)
        it.desk.there.clear()
        first = asyncio.create_task(it.open(voucher=30))
        await until(lambda: it.desk.calls == 2)
        second = asyncio.create_task(it.open())
        await turns()
        (recall,) = it.till.recall([LANE])
        assert recall.least == WINDOW
        it.desk.there.set()
        await asyncio.gather(first, second)


@pytest.mark.usefixtures("impatient")
async def test_an_ask_that_a_recall_has_overtaken_is_heard() -> None:
    """Else two Workers that both lack would make each other ask without end."""
    async with counter() as it:
        await it.open(voucher=10)
        it.desk.there.clear()
        opening = asyncio.create_task(it.open(voucher=15))
        await until(lambda: it.desk.calls == 2)
        (recall,) = it.till.recall([LANE])
        it.desk.one(recall)
        it.desk.there.set()
        with pytest.raises(RetryElsewhere, match="a voucher of 20 on its lane, 5 more"):
            await opening
        assert it.desk.calls == 2


async def test_who_waits_for_more_than_it_has_gives_that_back_and_asks_again() -> None:
    async with counter() as it:
        (await it.open(voucher=10)).close(4)
        it.till.issued([LANE])
        it.desk.states[LANE] = receivable.charged(it.desk.states[LANE], HOLDER, 4)
        it.desk.there.clear()
        opening = asyncio.create_task(it.open(voucher=14))
        await until(lambda: it.desk.calls == 2)
        (recall,) = it.till.recall([LANE])
        assert (recall.used, recall.least, it.free) == (4, 0, 0)
        it.desk.there.set()
        await until(lambda: len(it.desk.asks) == 2)
        it.desk.one(recall)
        await opening
        assert (it.desk.calls, it.free) == (3, 0)


async def test_a_lane_that_is_not_at_hand_is_given_back_whole() -> None:
    async with counter() as it:
        (ask,) = it.till.recall([LANE])
        assert (ask.fresh, ask.back) == (True, True)


async def test_while_the_ledger_is_restarted_requests_wait_for_it() -> None:
    async with counter() as it:
        it.desk.errors = [RetryElsewhere("gone", code="restarting")] * 3
        await it.open(voucher=50)
        assert it.desk.calls == 4
        assert it.free == 40


async def test_they_do_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tills, "LEDGER_SECONDS", 0.01)
    async with counter() as it:
        it.desk.there.clear()
        with pytest.raises(RetryElsewhere) as refused:
            await it.open(voucher=50)
        assert refused.value.code == "accounting_away"
        it.desk.there.set()
        await until(lambda: not it.till._shelf.slices[LANE].in_flight)
        assert it.free == 50


async def test_other_errors_are_for_those_who_wait_and_the_voucher_is_sent_again() -> None:
    async with counter() as it:
        it.desk.errors = [RetryElsewhere("no", code="else"), ZeroDivisionError()]
        with pytest.raises(RetryElsewhere, match="no"):
            await it.open(voucher=50)
        with pytest.raises(RetryElsewhere, match="ledger failed"):
            await it.open()
        await it.open()
        assert it.desk.states[LANE].vouched == 50


async def test_who_gives_up_while_it_waits_takes_nothing() -> None:
    async with counter() as it:
        it.desk.there.clear()
        one, other = (asyncio.create_task(it.open(voucher=50)) for _ in range(2))
        await turns()
        one.cancel()
        it.desk.there.set()
        await other
        assert it.free == 40


@pytest.mark.parametrize("after", range(6))
async def test_who_gives_up_in_the_moment_it_gets_it_leaves_it(after: int) -> None:
    async with counter() as it:
        it.desk.there.clear()
        one = asyncio.create_task(it.open(voucher=50))
        await turns()
        it.desk.there.set()
        await turns(after)
        one.cancel()
        await asyncio.gather(one, return_exceptions=True)
        await turns()
        found = it.till._shelf.slices.get(LANE)
        assert found is None or found.open == (0 if one.cancelled() else 10)


async def test_a_need_is_sent_once_on_each_connection() -> None:
    async with counter() as it:
        tabs = [await it.open(voucher=40) for _ in range(3)]
        it.connection = FakeConnection()
        tabs.append(await it.open())
        assert not any(tab.covers(11) for tab in tabs)
        await until(lambda: bool(it.connection.told))
        need = it.connection.told[-1]
        assert isinstance(need, Need)
        assert amount(need.cumulative) == 4 * (11 + WINDOW)


def test_a_request_that_allows_less_than_it_may_cost_is_refused() -> None:
    cost = price()
    request = Request(bytes(32), CLIENT.address, 0, bytes(32), bytes(32), 5, 10, 14, 0)
    with pytest.raises(RetryElsewhere, match="allows 14 and may cost 15"):
        Price.of(cost.quote, request, 100)
    enough = Request(bytes(32), CLIENT.address, 0, bytes(32), bytes(32), 5, 10, 15, 0)
    assert Price.of(cost.quote, enough, 100).ceiling == 15
    assert Price.of(cost.quote, enough, 3).first == 13
