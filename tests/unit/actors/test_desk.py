"""How a Worker reaches the books of a chain: it enlists before it borrows, repeats what was lost, and hides what Ray says."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lloom.actors import desk as desks
from lloom.actors import outbox
from lloom.actors.desk import ChainDesk
from lloom.actors.place import FellowAway
from lloom.actors.worker import Worker
from lloom.core.billing.lane import Lane
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity
from lloom.core.messages import LaneCall, Receipts, SignedReceipt
from lloom.core.payment.receivable import Ask, Grant, Holder
from tests.money_support import accounting, chain
from tests.unit.actors.actor_support import HERE, FakePlace, until

LANE = Lane(bytes(20), bytes(20), 0)
HOLDER = Holder("executor-worker-0", b"life")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "RETRY_SECONDS", 0)
    monkeypatch.setattr(outbox, "RETRY_SECONDS", 0)


class Books:
    """The accounting actor of the chain `base`: `away` calls fail before it answers."""

    def __init__(self) -> None:
        self.away = 0
        self.calls: list[tuple[str, Any]] = []
        self.place = FakePlace("executor-worker-0", fellows=self.answer)
        self.place.settings.chain = {"base": chain("base")}
        self.place.settings.accounting = accounting(report_seconds=1e-9)
        self.desk = ChainDesk(self.place.place, "base", HOLDER)

    def answer(self, fellow: str, method: str, *arguments: Any) -> Any:
        assert fellow == "accounting-base"
        self.calls.append((method, arguments))
        if self.away:
            self.away -= 1
            raise FellowAway("gone", code="restarting")
        return getattr(self, method)(*arguments)

    def enlist(self, holder: Holder) -> None:
        assert holder == HOLDER

    def lend(self, holder: Holder, asks: list[Ask]) -> list[Grant]:
        return [Grant(lane=ask.lane, number=ask.number, granted=7, spent=0) for ask in asks]

    def charge(self, holder: Holder, drafts: list[Any]) -> list[SignedReceipt]:
        return [SignedReceipt(b"%d" % draft.number, bytes(65)) for draft in drafts]

    def lane(self, client: Any, call: LaneCall) -> Any:
        class Told(Exception):
            cause = RetryElsewhere("busy", status=503, code="accounting_busy")

        class Traced(Told, RetryElsewhere): ...

        raise Traced("ray::Accounting.lane() Traceback …")

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.calls]


async def test_a_worker_enlists_before_it_borrows_and_once() -> None:
    books = Books()
    asks = [Ask(lane=LANE, number=1)]
    assert [grant.granted for grant in await books.desk.lend(asks)] == [7]
    await books.desk.lend(asks)
    await books.desk.run()
    assert books.methods == ["enlist", "lend", "lend"]
    await books.desk.close()


async def test_it_enlists_as_soon_as_it_starts_however_long_the_books_are_away() -> None:
    books = Books()
    books.away = 3
    await books.desk.run()
    assert books.methods == ["enlist"] * 4
    await books.desk.close()


async def test_receipts_are_asked_for_until_they_come_and_go_to_their_clients() -> None:
    books = Books()
    sent: list[Receipts] = []
    connection = SimpleNamespace(send_control=sent.append)

    class Connected:
        send_control = staticmethod(connection.send_control)

    books.away = 2
    books.desk.bill(cast(Any, Connected()), cast(Any, SimpleNamespace(number=1, lane=LANE)))
    await until(lambda: bool(sent))
    assert books.methods == ["charge"] * 3
    assert [item.receipt for item in sent[0].items] == [b"1"]
    await books.desk.close()


async def test_what_the_books_refuse_is_told_without_a_trace() -> None:
    books = Books()
    with pytest.raises(RetryElsewhere) as refused:
        await books.desk.lane(books.place.node, LaneCall(1, bytes(20), 0))
    assert (str(refused.value), refused.value.code) == ("busy", "accounting_busy")
    await books.desk.close()


async def test_a_worker_gives_back_what_its_present_life_has_only() -> None:
    books = Books()
    worker = Worker(books.place.place, HERE.port, HERE)
    worker._desks = {"base": books.desk}
    assert await worker.recall("base", Holder(HOLDER.name, b"before"), [LANE]) == []
    assert await worker.recall("polygon", HOLDER, [LANE]) == []
    (ask,) = await worker.recall("base", HOLDER, [LANE])
    assert ask.back
    await books.desk.close()


async def test_each_life_of_a_worker_is_another_one_and_it_has_a_till_for_each_chain() -> None:
    from contextlib import AsyncExitStack

    place = FakePlace("executor-worker-0", Identity.generate())
    place.settings.chain = {"base": chain("base"), "polygon": chain("polygon")}
    lives = set()
    for _ in range(2):
        async with AsyncExitStack() as stack:
            worker = Worker(place.place, HERE.port, HERE)
            tills = worker._open_tills(stack)
            assert tills.at(8453).domain.chain_id == 8453
            assert tills.at(137).domain.chain_id == 137
            with pytest.raises(RetryElsewhere, match="not paid on the chain 1"):
                tills.at(1)
            lives |= {desk.holder.life for desk in worker._desks.values()}
    assert len(lives) == 2
    place.settings.accounting = accounting(mode="off")
    async with AsyncExitStack() as stack:
        with pytest.raises(RetryElsewhere):
            Worker(place.place, HERE.port, HERE)._open_tills(stack).at(8453)
    await asyncio.sleep(0)
