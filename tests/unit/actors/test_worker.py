"""What a worker does beside answering: it follows the offer, renews its certificate, and has receipts signed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from msgspec.structs import replace

from lloom.actors import base, listening, worker
from lloom.actors.desk import RECEIPTS_PER_MESSAGE
from lloom.actors.place import FellowAway
from lloom.actors.worker import Worker
from lloom.core.bridge import certificate
from lloom.core.bridge.certificate import Certificate
from lloom.core.errors import RetryElsewhere
from lloom.core.messages import Control, SignedReceipt
from lloom.core.offer import Offer, seal
from tests.unit.actors.actor_support import (
    CERTIFICATE_SECONDS,
    HERE,
    NETWORK,
    PER_CLIENT,
    FakePlace,
    FakeTime,
    model,
    turns,
    until,
)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    found = FakeTime()
    for module in (listening, worker, base):
        monkeypatch.setattr(module, "time", found)
    monkeypatch.setattr(worker, "RETRY_SECONDS", 0)
    monkeypatch.setattr(listening, "NAP_SECONDS", 0)
    return found


class Fellows:
    """The executor and the ledger: `away` calls fail before they answer."""

    def __init__(self, clock: FakeTime) -> None:
        self.place = FakePlace("executor-worker-0", fellows=self.answer)
        self.clock = clock
        self.worker = Worker(self.place.place, HERE.port, HERE)
        self.away = 0
        self.enlisted: list[Any] = []
        self.seq = 0
        self.asked: list[int] = []
        self.endorsed = 0
        self.drafts: list[Any] = []

    def answer(self, fellow: str, method: str, *arguments: Any) -> Any:
        if self.away:
            self.away -= 1
            raise FellowAway(f"{fellow} does not answer")
        return getattr(self, method)(*arguments)

    def enlist(self, name: str, *terms: Any) -> None:
        self.enlisted.append((name, *terms))

    def offer(self, name: str, seen: int) -> tuple[int, bytes] | None:
        if not self.enlisted:
            return None
        self.asked.append(seen)
        return (seen, b"") if seen == self.seq else (self.seq, self.sealed())

    def endorse(self, public_hash: bytes) -> certificate.Endorsement:
        self.endorsed += 1
        return certificate.endorse(self.place.identity(), NETWORK, public_hash, self.clock.wall, CERTIFICATE_SECONDS)

    def issue(self, drafts: list[Any]) -> list[SignedReceipt]:
        self.drafts += drafts
        return [SignedReceipt(b"%d" % draft, bytes(65)) for draft in drafts]

    def sealed(self) -> bytes:
        offer = Offer(
            executor=self.place.node,
            seq=self.seq,
            expires=int(self.clock.wall) + 60,
            endpoints=(HERE,),
            models=(model("m"),),
            software="test",
        )
        return seal(offer, self.place.identity(), NETWORK)


class FakeServing:
    """Notes what is published."""

    def __init__(self) -> None:
        self.engines = {"m": (None, model("m"))}
        self.book = self
        self.numbers: list[int] = []

    def publish(self, sealed: bytes, offer: Offer, now: float) -> None:
        self.numbers.append(offer.seq)


@asynccontextmanager
async def at_work(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        async with asyncio.timeout(10):
            yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_enlists_and_serves_under_the_offer_it_is_given(clock: FakeTime) -> None:
    fellows, serving = Fellows(clock), FakeServing()
    fellows.seq = 5
    async with at_work(fellows.worker._follow_offer(cast(Any, serving))):
        assert await fellows.worker.ready() == "serves m at 127.0.0.1:9001 (TCP)"
        assert fellows.enlisted == [("executor-worker-0", HERE, (model("m"),))]
        await until(lambda: 5 in fellows.asked)
        fellows.seq = 6
        await until(lambda: serving.numbers == [5, 6])


async def test_it_offers_no_more_places_than_one_client_may_have(clock: FakeTime) -> None:
    fellows, serving = Fellows(clock), FakeServing()
    serving.engines["m"] = (None, replace(model("m"), parallel=1000))
    async with at_work(fellows.worker._follow_offer(cast(Any, serving))):
        await until(lambda: bool(fellows.enlisted))
        assert [each.parallel for each in fellows.enlisted[0][2]] == [PER_CLIENT]


async def test_the_tables_to_count_by_are_loaded_before_anybody_is_served(
    clock: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    fellows, serving, loaded = Fellows(clock), FakeServing(), []

    def count(_text: str, encoding: str) -> int:
        assert not fellows.enlisted
        loaded.append(encoding)
        return 0

    monkeypatch.setattr(worker.tokens, "count", count)
    serving.engines["other"] = (None, replace(model("other"), encoding="cl100k_base"))
    async with at_work(fellows.worker._follow_offer(cast(Any, serving))):
        await until(lambda: bool(fellows.enlisted))
        assert sorted(loaded) == ["cl100k_base", "o200k_base"]


async def test_it_says_so_when_no_backend_is_there_yet(clock: FakeTime) -> None:
    fellows, serving = Fellows(clock), FakeServing()
    serving.engines.clear()
    async with at_work(fellows.worker._follow_offer(cast(Any, serving))):
        assert "as soon as a backend is there" in await fellows.worker.ready()
        assert fellows.enlisted == [("executor-worker-0", HERE, ())]


async def test_an_executor_that_is_away_is_asked_until_it_is_back_and_told_again(clock: FakeTime) -> None:
    fellows, serving = Fellows(clock), FakeServing()
    fellows.seq, fellows.away = 5, 3
    async with at_work(fellows.worker._follow_offer(cast(Any, serving))):
        await until(lambda: serving.numbers == [5])
        fellows.away = 3
        fellows.enlisted.clear()  # it was killed, and knows nobody
        fellows.seq = 4  # and its clock was set back
        await until(lambda: serving.numbers == [5, 4])
        assert len(fellows.enlisted) == 1


async def test_its_certificate_is_renewed_by_the_wall_clock(clock: FakeTime) -> None:
    fellows = Fellows(clock)
    shown: list[Certificate] = []
    listener = SimpleNamespace(renew=shown.append)
    async with at_work(listening.keep_certified(cast(Any, listener), CERTIFICATE_SECONDS, fellows.worker._endorse)):
        await turns()
        assert shown == []
        for step in (CERTIFICATE_SECONDS / 2, 30 * CERTIFICATE_SECONDS, -CERTIFICATE_SECONDS):
            count = len(shown)
            clock.wall += step
            await until(lambda count=count: len(shown) == count + 1)  # type: ignore[misc]
            certificate.check(shown[-1].der, fellows.place.node, NETWORK, clock.wall)


async def test_each_client_gets_its_own_receipts_in_messages_that_any_peer_takes(clock: FakeTime) -> None:
    fellows = Fellows(clock)
    sent: dict[str, list[list[bytes]]] = {"a": [], "b": []}

    def connection(name: str) -> Any:
        def send_control(message: Control) -> None:
            sent[name].append([item.receipt for item in message.items])

        return SimpleNamespace(send_control=send_control)

    a, b = connection("a"), connection("b")
    first = RECEIPTS_PER_MESSAGE + 1
    bills = [(Hashable(a), number) for number in range(first)] + [(Hashable(b), first)]
    shared = bills[0][0]
    bills = [(shared if bill[1] < first else bill[0], bill[1]) for bill in bills]
    await fellows.worker._issue(cast(Any, bills))
    assert fellows.drafts == list(range(first + 1))
    assert [len(message) for message in sent["a"]] == [RECEIPTS_PER_MESSAGE, 1]
    assert sent["b"] == [[b"%d" % first]]


class Hashable:
    """A connection is known by its identity."""

    def __init__(self, connection: Any) -> None:
        self.send_control = connection.send_control


async def test_a_ledger_that_is_away_is_for_the_outbox_to_ask_again(clock: FakeTime) -> None:
    fellows = Fellows(clock)
    fellows.away = 1
    with pytest.raises(RetryElsewhere):
        await fellows.worker._issue(cast(Any, [(object(), 1)]))
    assert fellows.drafts == []
