"""Executors that lie lose their requests to honest ones, and that is known after a restart; no word of a prompt is kept."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from accounting_support import place
from test_accounting import serving

from lloom.actors.accounting import Accounting
from lloom.adapters.bridge import Stream
from lloom.adapters.routing.recollection import Recollection
from lloom.core.billing.receipt import Status
from lloom.core.errors import RetryElsewhere
from lloom.core.messages import Done
from lloom.core.reputation.evidence import Kind
from lloom.core.reputation.reputations import Reputations, Row
from tests.integration.test_router_bridge import Network, Worker, network
from tests.unit.adapters.routing_support import END, ROLE, chunk

DAY = 86_400.0
SECRET = "zebrafish"


def say(text: Callable[[str], str], more: int = 0) -> Callable[[Worker, Stream], Awaitable[None]]:
    """Answers a question with `text` of it, and claims so many tokens more."""

    async def serve(worker: Worker, stream: Stream) -> None:
        question = msgspec.json.decode(worker.bodies[-1])["messages"][-1]["content"]
        whole = ROLE + chunk({"content": text(question)}) + END
        await stream.send(whole)
        await stream.finish(Done(12, 60 + more))
        worker.bill(stream, whole, Status.COMPLETE)

    return serve


def own_words(question: str) -> str:
    """Sixty tokens, about, that no other question gets."""
    return " ".join(hashlib.sha256(f"{question} {number}".encode()).hexdigest()[:4] for number in range(24))


def same_words(_: str) -> str:
    return "I am a very good model, and I say the same to everybody. " * 4


async def asked(net: Network, times: int, first: int = 0) -> None:
    for number in range(first, first + times):
        reply = await net.http.ask(messages=[{"role": "user", "content": f"{SECRET} {number}"}])
        assert reply.status == 200


def counts(*workers: Worker) -> list[int]:
    return [len(worker.bodies) for worker in workers]


async def doubts(net: Network, worker: Worker) -> list[str]:
    """All but that it is fast: nobody here computes anything."""
    reasons = net.outcomes.reputations.score(worker.address, asyncio.get_running_loop().time()).reasons
    return [reason for reason in reasons if "faster" not in reason]


def on_disk(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_who_overcounts_what_nobody_pays_for_loses_its_requests() -> None:
    liar, honest = Worker(1, say(own_words, more=400)), Worker(9, say(own_words))
    async with network(liar, honest, policy="cheapest") as net:
        await asked(net, 30)
        before = counts(liar, honest)
        await asked(net, 10, 30)
        print(
            f"\nasked of 30: liar {before[0]}, honest {before[1]}; of the next 10: {counts(honest)[0] - before[1]} honest"
        )
        assert counts(liar)[0] == before[0] < 15, "though it is the cheapest"
        assert counts(honest)[0] == before[1] + 10
        assert (await doubts(net, liar))[0].startswith("claims more tokens than arrive")
        assert await doubts(net, honest) == []
        _, verdict = (await net.http.get("/lloom/routing/m")).json["data"]
        assert (verdict["verdict"], verdict["reason"]) == ("after others", "was not honest to us")
        assert verdict["reputation"] < 0.5


async def test_who_says_the_same_to_everybody_loses_its_requests() -> None:
    liar, honest = Worker(1, say(same_words)), Worker(9, say(own_words))
    async with network(liar, honest, policy="cheapest") as net:
        await asked(net, 80)
        before = counts(liar, honest)
        await asked(net, 20, 80)
        print(
            f"\nasked of 80: liar {before[0]}, honest {before[1]}; of the next 20: {counts(honest)[0] - before[1]} honest"
        )
        assert counts(liar)[0] == before[0] < 60, "though it is the cheapest"
        assert counts(honest)[0] == before[1] + 20
        assert (await doubts(net, liar))[0].startswith("answers different questions with the same words")
        assert await doubts(net, honest) == []


async def test_who_refuses_a_quote_that_holds_is_remembered_for_it() -> None:
    async def dearer(_: Worker, __: Stream) -> None:
        raise RetryElsewhere("the price is another one now", status=409, code="quote")

    liar, honest = Worker(1, dearer), Worker(9, say(own_words))
    async with network(liar, honest, policy="cheapest") as net:
        await asked(net, 3)
        seen = net.outcomes.reputations.evidence(liar.address, asyncio.get_running_loop().time())
        assert seen.wrong[Kind.PRICE] > 0
        assert any("quotes" in reason for reason in await doubts(net, liar))
        assert counts(honest) == [3]


async def test_a_false_receipt_counts_though_nobody_pays() -> None:
    async def false(worker: Worker, stream: Stream) -> None:
        whole = ROLE + chunk({"content": own_words("")}) + END
        await stream.send(whole)
        await stream.finish(Done(12, 60))
        worker.bill(stream, whole + b"more", Status.COMPLETE)

    liar = Worker(1, false)
    judged: list[Any] = []
    async with network(liar) as net:
        done = asyncio.Event()

        def heard(*what: Any) -> None:
            judged.append(what)
            done.set()

        net.deliveries._on_judged = heard
        await asked(net, 1)
        await done.wait()
    assert judged == [(liar.address, "m", False)]


class Ledger:
    """The accounting actor without Ray between; `away`: it does not answer."""

    def __init__(self, actor: Accounting) -> None:
        self.actor = actor
        self.away = False

    async def recall(self) -> list[Row]:
        self._there()
        return await self.actor.recall_evidence()

    async def keep(self, rows: list[Row]) -> None:
        self._there()
        await self.actor.keep_evidence(rows)

    def _there(self) -> None:
        if self.away:
            raise RetryElsewhere("away", code="accounting_away")


async def test_what_was_seen_outlives_a_restart_and_no_prompt_or_answer_is_kept(tmp_path: Path) -> None:
    liar, honest = Worker(1, say(own_words, more=400)), Worker(9, say(own_words))
    reputations = Reputations(DAY)
    async with (
        network(liar, honest, policy="cheapest", reputations=reputations) as net,
        serving(Accounting(place(tmp_path))) as actor,
    ):
        recollection = Recollection(reputations, Ledger(actor))
        await recollection.recall()
        await asked(net, 30)
        await recollection.keep()
    again = Reputations(DAY)
    async with serving(Accounting(place(tmp_path))) as actor:
        await Recollection(again, Ledger(actor)).recall()
    now = asyncio.get_running_loop().time()
    assert again.score(liar.address, now).doubted
    assert again.pace(honest.address, "m")[0] == pytest.approx(reputations.pace(honest.address, "m")[0])
    first = counts(liar)
    async with network(liar, honest, policy="cheapest", reputations=again) as net:
        await asked(net, 5)
    assert counts(liar) == first, "it is known from the first request on"
    written = on_disk(tmp_path)
    assert liar.address in written
    for word in (SECRET, own_words(f"{SECRET} 1")[:9]):
        assert word.encode() not in written


async def test_what_cannot_be_kept_now_is_kept_later(tmp_path: Path) -> None:
    reputations, executor = Reputations(DAY), Worker(1, say(own_words)).address
    now = asyncio.get_running_loop().time()
    async with serving(Accounting(place(tmp_path))) as actor:
        ledger = Ledger(actor)
        recollection = Recollection(reputations, ledger)
        reputations.note(executor, "m", Kind.ANSWER, now, right=True)
        await recollection.keep()
        assert await ledger.recall() == [], "nothing is written before what is there was read"
        await recollection.recall()
        ledger.away = True
        await recollection.keep()
        ledger.away = False
        await recollection.close(10.0)
        [row] = await ledger.recall()
    assert row.executor == executor
    assert row.known.right[Kind.ANSWER] == 1.0
