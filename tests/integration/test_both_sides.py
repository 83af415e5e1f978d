"""A client's purse and an executor's tills, both as they are, over real bridges and real journals; only the chain is told."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from market_support import Buyer, buying
from msgspec.structs import replace
from payables_support import CLIENT, TOKEN
from receivables_support import CHAIN
from test_serving_paid import END, HANG, WINDOW, WORD, Market, chunk, market, model

from lloom.adapters.journal import lanes
from lloom.adapters.routing.answer import Answer
from lloom.core.api.completions import parse as completions
from lloom.core.api.embeddings import Embeddings
from lloom.core.api.request import ApiRequest
from lloom.core.billing.lane import Lane
from lloom.core.billing.quote import Basis
from lloom.core.billing.receipt import Status, read_receipt
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId
from lloom.core.offer import Endpoint, Offer, fingerprint, seal
from lloom.core.payment import counting
from lloom.core.payment.domain import payment
from lloom.core.payment.receivable import Receivable
from lloom.core.settings import PrepaySettings
from lloom.core.sse import event
from tests.integration.bridge_support import NETWORK
from tests.money_support import accounting
from tests.unit.adapters.routing_support import END as STOP
from tests.unit.adapters.routing_support import request

PREPAY = PrepaySettings(per_executor=100_000, newcomers=200_000, ahead=1.0)
PROMPT, TOKEN_PRICE = 3, 5
"""What a token of a prompt costs there, and one of an answer."""


@dataclass
class Shop:
    """An executor as the DHT names it."""

    address: NodeId
    endpoint: Endpoint
    fingerprint: bytes
    models: tuple[str, ...] = ("m",)


def opened(it: Market, **changes: Any) -> Shop:
    """The executor of `it`, with an offer that names all its workers."""
    ports = [worker.executor.listener.port for worker in it.workers]
    offer = Offer(
        executor=it.owner.address,
        seq=2,
        expires=int(time.time() + 600),
        endpoints=tuple(Endpoint("127.0.0.1", port) for port in ports),
        models=(replace(model("m"), parallel=64, **changes),),
        software="test",
        payments=(payment(CHAIN),),
        window=WINDOW,
    )
    sealed = seal(offer, it.owner, NETWORK)
    for worker in it.workers:
        worker.serving.book.publish(sealed, offer, 0)
    return Shop(it.owner.address, offer.endpoints[0], fingerprint(sealed))


@asynccontextmanager
async def both(
    tmp_path: Path, words: int, workers: int = 2, replay_bytes: int = 0, **changes: Any
) -> AsyncIterator[tuple[Market, Buyer]]:
    script = (*[WORD] * words, STOP, END)
    async with market(tmp_path / "executor.sqlite", *script, workers=workers, replay_bytes=replay_bytes) as it:
        shop: Any = opened(it)
        limits = {"prepay": PREPAY, "slack": 64, **changes}
        async with buying(tmp_path / "client.sqlite", shop, **limits) as buyer:
            yield it, buyer


async def ask(buyer: Buyer, **fields: Any) -> bytes:
    answer = await buyer.router.ask(request(**fields))
    return b"".join([data async for data in answer])


async def read_on(answer: Answer, parts: list[bytes]) -> None:
    while (data := await answer.read()) is not None:
        parts.append(data)


async def owed(it: Market) -> Receivable:
    key = Lane(CLIENT.address, TOKEN, 0)
    found = await it.books.writer.write(lambda db: lanes.load(db, key), 1)
    assert found is not None
    return found


async def agreed(it: Market, buyer: Buyer) -> None:
    """Returns once the idle lane's voucher is in the executor's journal: all that was charged was accepted, and is redeemed."""
    await buyer.purse.lanes._lanes[it.owner.address].close()
    charged, claim = (await owed(it)).charged, None
    while claim is None or claim.checked.voucher.accepted < charged:  # bounded by the buyer's own timeout
        await asyncio.sleep(0.001)
        [owing] = await it.books.writer.write(lanes.owing, 1)
        claim = owing.claim
    receipts = [read_receipt(each.signed.receipt) for each in buyer.bank.judged]
    accepted = lane(buyer, it).accepted
    assert claim.up_to == claim.checked.voucher.accepted == accepted == charged == sum(each.cost for each in receipts)
    assert claim.checked.voucher.cumulative >= charged
    assert sum(usage.requests for usage in claim.checked.usages) == len(receipts)


def lane(buyer: Buyer, it: Market) -> Any:
    return buyer.purse.lanes._lanes[it.owner.address].payable


async def test_what_one_side_charges_the_other_accepts_and_promises(tmp_path: Path) -> None:
    async with both(tmp_path, words=20) as (it, buyer):
        for number in range(1, 31):
            assert await ask(buyer) == WORD * 20 + STOP
            await buyer.bank.settled(number)
        payable, books = lane(buyer, it), await owed(it)
        assert set(buyer.problems) == {""}
        assert payable.accepted == books.charged > 0
        assert payable.signed >= books.charged
        assert payable.signed - payable.accepted <= PREPAY.per_executor
        await agreed(it, buyer)
        await asyncio.gather(*(worker.desk.till.close() for worker in it.workers))
        assert (await owed(it)).vouched <= payable.signed


@pytest.mark.parametrize("breaks", [1, 3])
async def test_an_answer_whose_connection_breaks_comes_whole_and_is_charged_once(tmp_path: Path, breaks: int) -> None:
    words = 20 * WINDOW
    async with both(tmp_path, words=words, workers=1, replay_bytes=1 << 24) as (it, buyer):
        answer = await buyer.router.ask(request(max_tokens=words))
        parts = [answer.first]
        for _ in range(breaks):
            parts.append(await answer.read() or b"")
            for connection in tuple(it.workers[0].executor.listener.connections):
                connection.wire.abort()
        await read_on(answer, parts)
        assert b"".join(parts) == WORD * words + STOP
        assert answer.attempts == 1
        await buyer.bank.settled(1)
        assert buyer.problems == [""]
        assert lane(buyer, it).accepted == (await owed(it)).charged > 0
        await agreed(it, buyer)


@pytest.mark.parametrize("workers", [1, 2])
async def test_long_answers_in_parallel_are_paid_as_they_come(tmp_path: Path, workers: int) -> None:
    words, streams = 20 * WINDOW, 64
    async with both(tmp_path, words=words, workers=workers) as (it, buyer):
        for _ in range(3):
            answers = await asyncio.gather(*(ask(buyer, max_tokens=words) for _ in range(streams)))
            assert set(answers) == {WORD * words + STOP}
        await buyer.bank.settled(3 * streams)
        payable, books = lane(buyer, it), await owed(it)
        assert set(buyer.problems) == {""}
        assert {read_receipt(each.signed.receipt).status for each in buyer.bank.judged} == {Status.COMPLETE}
        assert payable.accepted == books.charged >= 3 * streams * words * TOKEN_PRICE
        assert payable.grants == {}
        assert payable.signed - payable.accepted <= PREPAY.per_executor
        await agreed(it, buyer)


async def test_a_backend_that_counts_half_as_much_again_is_paid_to_the_end(tmp_path: Path) -> None:
    """Its pieces are smaller than our tokens: the till counts pieces while an answer runs."""
    words = 250
    async with market(tmp_path / "executor.sqlite", *[chunk(" t"), chunk("o")] * words, STOP, END) as it:
        shop: Any = opened(it)
        async with buying(tmp_path / "client.sqlite", shop, prepay=PREPAY, slack=64) as buyer:
            answer = await ask(buyer, max_tokens=512)
            assert answer.count(b"data:") == 2 * words + 1
            await buyer.bank.settled(1)
            assert buyer.problems == [""]


async def test_a_client_without_money_left_gets_what_it_paid_for(tmp_path: Path) -> None:
    words = 40 * WINDOW
    async with both(tmp_path, words=words, workers=1, budget=40 * 3 + 100 * 3 + 12 * WINDOW * TOKEN_PRICE) as (
        it,
        buyer,
    ):
        for worker in it.workers:
            worker.desk.till._limits = replace(worker.desk.till._limits, credit_seconds=0.2)
        answer = await buyer.router.ask(request(max_tokens=words))
        parts = [answer.first]
        with pytest.raises(RetryElsewhere) as ended:
            await read_on(answer, parts)
        assert (ended.value.status, ended.value.code) == (402, "payment_required")
        arrived = b"".join(parts)
        await answer.close()
        await buyer.bank.settled(1)
        assert 0 < arrived.count(WORD) < words
        assert buyer.problems == [""]
        [judged] = buyer.bank.judged
        receipt = read_receipt(judged.signed.receipt)
        assert receipt.cost <= lane(buyer, it).signed
        assert receipt.output_tokens >= arrived.count(WORD) - 1


async def test_an_answer_that_nobody_reads_is_paid_as_it_arrives(tmp_path: Path) -> None:
    words = 50 * WINDOW
    async with both(tmp_path, words=words, workers=1) as (it, buyer):
        answer = await buyer.router.ask(request(max_tokens=words))
        while not it.workers[0].serving.served:  # noqa: ASYNC110 - bounded by the buyer's own timeout
            await asyncio.sleep(0.001)
        assert answer.first.count(WORD) < words
        rest = [data async for data in answer]
        assert b"".join(rest) == WORD * words + STOP
        await buyer.bank.settled(1)
        assert buyer.problems == [""]


async def test_a_cancelled_answer_is_paid_as_far_as_it_arrived(tmp_path: Path) -> None:
    async with market(tmp_path / "executor.sqlite", *[WORD] * 7, HANG) as it:
        shop: Any = opened(it)
        async with buying(tmp_path / "client.sqlite", shop, prepay=PREPAY, slack=64) as buyer:
            answer = await buyer.router.ask(request())
            await it.workers[0].engine.hung.wait()
            await answer.close()
            await buyer.bank.settled(1)
            [judged] = buyer.bank.judged
            receipt = read_receipt(judged.signed.receipt)
            assert (judged.problem, receipt.status) == ("", Status.CANCELLED)
            assert 0 < receipt.output_tokens <= 7
            assert lane(buyer, it).accepted == receipt.cost == (await owed(it)).charged
            await agreed(it, buyer)


async def bought(tmp_path: Path, asked: ApiRequest, *script: Any) -> tuple[bytes, Any, Buyer]:
    """The answer to one request, its receipt, and who bought it."""
    async with market(tmp_path / "executor.sqlite", *script) as it:
        shop: Any = opened(it, operations=("completions", "embeddings"))
        async with buying(tmp_path / "client.sqlite", shop, prepay=PREPAY, slack=64) as buyer:
            answer = b"".join([data async for data in await buyer.router.ask(asked)])
            await buyer.bank.settled(1)
            [judged] = buyer.bank.judged
            assert lane(buyer, it).accepted == (await owed(it)).charged
            return answer, read_receipt(judged.signed.receipt), buyer


def embeddings(*texts: str) -> ApiRequest:
    return Embeddings().read(msgspec.json.encode({"model": "m", "input": texts}), "").request


VECTOR = base64.b64encode(bytes(16 * 1024))


@pytest.mark.parametrize("usage", [b"", event(b'{"choices":[],"usage":{"prompt_tokens":51,"total_tokens":51}}')])
async def test_embeddings_cost_their_input_only_however_large_they_are(tmp_path: Path, usage: bytes) -> None:
    texts = ["one two"] * 25
    script = [event(b'{"object":"embedding","index":%d,"embedding":"%b"}' % (i, VECTOR)) for i in range(len(texts))]
    answer, receipt, buyer = await bought(tmp_path, embeddings(*texts), *script, usage + END)
    assert answer == b"".join(script)
    counted = 51 if usage else 2 * len(texts)
    assert (receipt.status, receipt.input_tokens, receipt.output_tokens) == (Status.COMPLETE, counted, 0)
    assert receipt.cost == counted * PROMPT
    assert buyer.problems == [""]


async def test_embeddings_cost_no_more_than_the_client_counts_and_tolerates(tmp_path: Path) -> None:
    usage = event(b'{"choices":[],"usage":{"prompt_tokens":100000,"total_tokens":100000}}')
    vector = event(b'{"object":"embedding","index":0,"embedding":"%b"}' % VECTOR)
    _, receipt, buyer = await bought(tmp_path, embeddings("one"), vector, usage + END)
    assert receipt.input_tokens == counting.accepted(1, Basis.BACKEND, accounting(slack=64)) < 100
    assert buyer.problems == [""]


async def test_a_completion_is_counted_by_its_texts(tmp_path: Path) -> None:
    def said(text: str, index: int, finish: str | None = None) -> bytes:
        choice = {"index": index, "text": text, "finish_reason": finish}
        return event(msgspec.json.encode({"choices": [choice]}))

    script = [said(" word", number % 2) for number in range(6 * WINDOW)] + [said("", 0, "stop"), said("", 1, "stop")]
    asked = completions(msgspec.json.encode({"model": "m", "prompt": ["Once upon", "a time"], "max_tokens": 100}))
    _, receipt, buyer = await bought(tmp_path, asked, *script, END)
    assert (receipt.input_tokens, receipt.output_tokens) == (4, 6 * WINDOW)
    assert receipt.cost == 4 * PROMPT + 6 * WINDOW * TOKEN_PRICE
    assert buyer.problems == [""]
