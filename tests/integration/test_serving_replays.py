"""Clients that lost an answer and send the same signed order again, over real bridges: what runs, is said, and is billed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from test_serving import (
    BODY,
    END,
    HANG,
    HELLO,
    USAGE_CHUNK,
    WORLD,
    Counter,
    ScriptedEngine,
    chunk,
    dialled,
    kind,
    opened,
)
from test_serving_paid import FIRST, INPUTS, WINDOW, WORD, Told, Worker, market
from test_serving_paid import dialled as dialled_paid

from lloom.adapters.bridge import Connection, Stream
from lloom.adapters.serving import orders
from lloom.adapters.serving.orders import REPEATS
from lloom.adapters.serving.run import Run
from lloom.core.billing.receipt import Status
from lloom.core.copies import BESIDES
from lloom.core.errors import LloomError, RetryElsewhere
from lloom.core.identity import Identity
from lloom.core.messages import ModelCall
from lloom.core.rates import Limits
from tests.integration.bridge_support import read_all, until

KEPT = {"replay_bytes": 1 << 24, "replay_seconds": 60.0}
SOON = {"replay_bytes": 1 << 24, "replay_seconds": 0.05}


class Pausing(ScriptedEngine):
    """An event in its script is waited for. `given`: how many parts it has given."""

    given = 0

    async def stream(self, *asked: Any) -> AsyncGenerator[bytes, None]:
        self.asked.append(asked[1:])
        self.open += 1
        try:
            for part in self.script:
                if isinstance(part, asyncio.Event):
                    self.hung.set()
                    await part.wait()
                else:
                    self.given += 1
                    yield part
        finally:
            self.open -= 1
            self.closed.set()


@asynccontextmanager
async def pausing(*script: Any, **changes: Any) -> AsyncIterator[Counter]:
    async with opened(**{**KEPT, **changes}) as counter:
        counter.engine = Pausing(script)
        for name, (_, offer) in tuple(counter.serving.engines.items()):
            counter.serving.engines[name] = (counter.engine, offer)  # type: ignore[index]
        yield counter


async def sent(connection: Connection, call: ModelCall, body: bytes = BODY) -> Stream:
    stream = await connection.open(call)
    await stream.send(body)
    await stream.finish()
    return stream


async def refusal(stream: Stream) -> LloomError:
    with pytest.raises(LloomError) as refused:
        await read_all(stream)
    return refused.value


async def cut(counter: Counter, call: ModelCall, read: int) -> bytes:
    """What came of an answer, at least so many bytes, before its connection broke, while the backend waits."""
    connection = await dialled(counter.executor, counter.client)
    stream = await sent(connection, call)
    received = b""
    while len(received) < read:
        received += await stream.receive() or b""
    await counter.engine.hung.wait()
    await broken(counter, connection)
    return received


async def broken(counter: Counter, connection: Connection) -> None:
    """The connection is gone, and the executor knows."""
    before = len(counter.executor.listener.connections)
    connection.wire.abort()
    await until(lambda: len(counter.executor.listener.connections) < before)


def order(counter: Counter, **changes: Any) -> ModelCall:
    return counter.call(counter.quote(counter.publish()), **changes)


# An answer that is over


async def test_an_answer_that_is_over_is_said_again_and_runs_once() -> None:
    async with opened(HELLO, WORLD + USAGE_CHUNK, END, **KEPT) as counter:
        call = order(counter)
        first = await counter.ask(call)
        await until(lambda: counter.idle)
        other = await dialled(counter.executor, counter.client)
        again = await sent(other, call)
        assert (await read_all(again), again.done) == first == (HELLO + WORLD, again.done)
        assert len(counter.engine.asked) == 1
        await until(lambda: len(counter.drafts) == 2)
        assert counter.drafts[0] is counter.drafts[1], "the same draft gives the same receipt, and is charged once"
        assert counter.drafts[0].response_hash == hashlib.sha256(call.salt + first[0]).digest()
        assert counter.serving.served == 1
        await other.close()


async def test_a_client_has_its_answer_again_when_the_model_is_gone_and_the_terms_are_over() -> None:
    async with opened(**KEPT) as counter:
        call = order(counter)
        first = await counter.ask(call)
        await until(lambda: counter.idle)
        counter.serving.engines.clear()  # type: ignore[attr-defined]
        counter.serving.book._terms.clear()
        assert await counter.ask(call) == first


async def test_an_answer_is_said_again_so_many_times() -> None:
    async with opened(**KEPT) as counter:
        call = order(counter)
        for _ in range(1 + REPEATS):
            await counter.ask(call)
            await until(lambda: counter.idle)
        assert kind(await counter.refusal(call)) == (RetryElsewhere, 409, "replayed")


async def test_an_answer_is_forgotten_when_its_time_is_over_though_nobody_asks() -> None:
    async with opened(**SOON) as counter:
        call = order(counter)
        await counter.ask(call)
        copies = counter.serving._orders._copies
        assert copies is not None
        await until(lambda: copies.size == 0)
        assert kind(await counter.refusal(call)) == (RetryElsewhere, 409, "replayed")
        assert len(counter.engine.asked) == 1


async def test_an_answer_whose_time_is_over_is_not_given_again_before_somebody_has_tidied_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orders, "TIDYINGS", 1e-6)
    async with opened(**SOON) as counter:
        call = order(counter)
        await counter.ask(call)
        copies = counter.serving._orders._copies
        assert copies is not None
        await until(lambda: len(copies) == 1)
        [(_, _, end)] = copies._kept.values()
        await until(lambda: asyncio.get_running_loop().time() > end)
        assert len(copies) == 1
        assert kind(await counter.refusal(call)) == (RetryElsewhere, 409, "replayed")
        assert copies.size == 0


def passes(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """So much later, whoever asks whether an order was made before."""
    monkeypatch.setattr(orders, "time", SimpleNamespace(time=lambda: time.time() + seconds))


async def test_an_id_that_is_used_anew_after_its_deadline_leaves_nothing_of_the_answer_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened(**KEPT) as counter:
        name = os.urandom(32)
        await counter.ask(order(counter, request_id=name))
        copies = counter.serving._orders._copies
        assert copies is not None
        await until(lambda: len(copies) == 1)
        passes(monkeypatch, 61)
        counter.engine.script = (HELLO, HANG)
        call = order(counter, request_id=name, seconds=600)
        stream = await counter.open(call)
        await counter.engine.hung.wait()
        stream.cancel()
        await until(lambda: counter.idle)
        assert (len(copies), copies.size) == (0, 0)
        assert kind(await counter.refusal(call)) == (RetryElsewhere, 409, "replayed")


async def test_an_id_is_not_used_anew_while_an_order_of_that_name_is_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its work may stop some time after its deadline, and clocks may be set."""
    go, name = asyncio.Event(), os.urandom(32)
    async with pausing(HELLO, go, END) as counter:
        stream = await counter.open(order(counter, request_id=name))
        await counter.engine.hung.wait()
        passes(monkeypatch, 61)
        other = await dialled(counter.executor, counter.client)
        again = await sent(other, order(counter, request_id=name, seconds=600))
        assert kind(await refusal(again)) == (RetryElsewhere, 409, "running")
        go.set()
        assert await read_all(stream) == HELLO
        await until(lambda: counter.idle)
        await other.close()


async def test_nothing_is_left_of_any_answer_at_the_end() -> None:
    async with opened(**KEPT) as counter:
        await counter.ask(order(counter))
        copies = counter.serving._orders._copies
        assert copies is not None
        await until(lambda: len(copies) == 1)
        assert copies.size == len(HELLO + WORLD) + BESIDES
        await counter.serving.close()
        assert (len(copies), copies.size) == (0, 0)


async def test_an_answer_that_is_too_large_is_not_kept() -> None:
    async with opened(chunk("x" * 10_000), END, replay_bytes=8 * (BESIDES + 10_000)) as counter:
        call = order(counter)
        await counter.ask(call)
        await until(lambda: counter.idle)
        assert kind(await counter.refusal(call)) == (RetryElsewhere, 409, "replayed")


# Who may have it


async def test_the_same_id_with_another_body_is_refused() -> None:
    async with opened(**KEPT) as counter:
        name = bytes(range(32))
        await counter.ask(order(counter, request_id=name))
        await until(lambda: counter.idle)
        other = BODY.replace(b"hello", b"goodbye")
        stream = await counter.open(order(counter, request_id=name, body=other), other)
        assert kind(await refusal(stream)) == (RetryElsewhere, 409, "reused")
        assert len(counter.engine.asked) == 1


async def test_another_body_under_the_same_signature_is_refused_and_harms_nobody() -> None:
    async with opened(**KEPT) as counter:
        call = order(counter)
        first = await counter.ask(call)
        await until(lambda: counter.idle)
        stream = await counter.open(call, BODY.replace(b"hello", b"goodbye"))
        assert kind(await refusal(stream)) == (RetryElsewhere, 502, "bad_request_hash")
        assert await counter.ask(call) == first


async def test_nobody_else_gets_an_answer_by_its_order_or_its_id() -> None:
    async with opened(**KEPT) as counter:
        name, other = bytes(range(32)), Identity.generate()
        call = order(counter, request_id=name)
        await counter.ask(call)
        await until(lambda: counter.idle)
        connection = await dialled(counter.executor, other)
        stream = await sent(connection, call)
        assert kind(await refusal(stream)) == (RetryElsewhere, 502, "bad_signature")
        stream = await sent(connection, order(counter, request_id=name, signer=other))
        assert await read_all(stream) == HELLO + WORLD
        assert len(counter.engine.asked) == 2, "an id is a client's own"
        await connection.close()


# An answer that is being given


async def test_who_is_back_amid_an_answer_gets_all_of_it_and_it_runs_once() -> None:
    go = asyncio.Event()
    async with pausing(HELLO, go, WORLD + USAGE_CHUNK, END) as counter:
        call = order(counter)
        assert await cut(counter, call, len(HELLO)) == HELLO
        stream = await counter.open(call)
        assert await stream.receive() == HELLO
        go.set()
        assert await read_all(stream) == WORLD
        await until(lambda: counter.idle)
        [draft] = counter.drafts
        assert (draft.status, draft.response_bytes, len(counter.engine.asked)) == (
            Status.COMPLETE,
            len(HELLO + WORLD),
            1,
        )
        assert await counter.ask(call) == (HELLO + WORLD, stream.done), "and once more, since it is over"


async def test_who_is_back_before_the_first_word_has_not_lost_the_work_on_its_prompt() -> None:
    go = asyncio.Event()
    async with pausing(go, HELLO, END) as counter:
        call = order(counter)
        await cut(counter, call, 0)
        stream = await counter.open(call)
        go.set()
        assert await read_all(stream) == HELLO
        assert len(counter.engine.asked) == 1


async def test_who_loses_its_connection_again_and_again_gets_it_in_the_end() -> None:
    go = asyncio.Event()
    async with pausing(HELLO, go, WORLD, END) as counter:
        call = order(counter)
        for _ in range(1 + REPEATS):
            await cut(counter, call, len(HELLO))
        connection = await dialled(counter.executor, counter.client)
        assert kind(await refusal(await sent(connection, call))) == (RetryElsewhere, 409, "replayed")
        await connection.close()
        await counter.serving.close()


async def test_while_its_client_is_away_an_answer_waits() -> None:
    go = asyncio.Event()
    async with pausing(HELLO, go, *[WORLD] * 50, END) as counter:
        call = order(counter)
        await cut(counter, call, len(HELLO))
        go.set()
        await until(lambda: counter.engine.given == 2)
        for _ in range(100):
            await asyncio.sleep(0)
        assert counter.engine.given == 2, "no more than one part is ahead"
        assert (await counter.ask(call))[0] == HELLO + WORLD * 50


async def test_who_does_not_come_back_holds_a_place_for_a_while_only() -> None:
    async with pausing(HELLO, asyncio.Event(), END, **SOON) as counter:
        call = order(counter)
        await cut(counter, call, len(HELLO))
        await counter.engine.closed.wait()
        await until(lambda: counter.idle)
        assert [(draft.status, draft.cost) for draft in counter.drafts] == [(Status.FAILED, 0)]
        assert kind(await counter.refusal(call)) == (RetryElsewhere, 409, "replayed")
        copies = counter.serving._orders._copies
        assert copies is not None
        assert copies.size == 0


async def test_who_is_away_takes_its_share_all_the_same() -> None:
    async with pausing(HELLO, asyncio.Event(), END, requests_per_client=1) as counter:
        await cut(counter, order(counter), len(HELLO))
        stream = await counter.open(order(counter))
        assert kind(await refusal(stream)) == (RetryElsewhere, 429, "busy")
        await counter.serving.close()


async def test_an_answer_that_is_given_to_somebody_is_not_given_to_another_connection() -> None:
    go = asyncio.Event()
    async with pausing(HELLO, go, WORLD, END) as counter:
        call = order(counter)
        stream = await counter.open(call)
        await counter.engine.hung.wait()
        other = await dialled(counter.executor, counter.client)
        refused = await refusal(await sent(other, call))
        assert kind(refused) == (RetryElsewhere, 409, "running")
        assert isinstance(refused, RetryElsewhere)
        assert refused.retry_after == 1.0
        go.set()
        assert await read_all(stream) == HELLO + WORLD
        await other.close()


async def test_who_sends_an_order_twice_at_once_is_served_once() -> None:
    go = asyncio.Event()
    async with pausing(HELLO, go, END) as counter:
        call = order(counter)
        one = await counter.connection.open(call)
        other = await counter.connection.open(call)
        await until(lambda: counter.serving._clients.open[counter.client.address] == 2)  # both wait for the body
        for stream in (one, other):
            await stream.send(BODY)
            await stream.finish()
        assert kind(await refusal(other)) == (RetryElsewhere, 409, "running")
        go.set()
        assert await read_all(one) == HELLO
        assert len(counter.engine.asked) == 1


async def test_no_timer_is_left_of_an_order_that_is_over() -> None:
    go = asyncio.Event()
    async with pausing(HELLO, go, END) as counter:
        stream = await counter.open(order(counter))
        await counter.engine.hung.wait()
        [running] = counter.serving._orders._running.values()
        go.set()
        await read_all(stream)
        await until(lambda: counter.idle)
        assert running.due.cancelled()


async def test_what_was_cancelled_is_billed_as_it_was_and_not_said_again() -> None:
    async with pausing(HELLO, asyncio.Event(), END) as counter:
        call = order(counter)
        stream = await counter.open(call)
        assert await stream.receive() == HELLO
        stream.cancel()
        await until(lambda: counter.idle)
        assert [draft.status for draft in counter.drafts] == [Status.CANCELLED]
        assert kind(await counter.refusal(call)) == (RetryElsewhere, 409, "replayed")
        assert len(counter.drafts) == len(counter.engine.asked) == 1


async def test_who_cancels_after_it_came_back_is_billed_for_what_arrived_there() -> None:
    """Even if that is less than what a window holds, of what was sent to the connection that broke."""
    large = [chunk("word " * 20_000) for _ in range(8)]
    go = asyncio.Event()
    async with pausing(*large, go, END) as counter:
        call = order(counter, max_output_tokens=1 << 20)
        await cut(counter, call, sum(map(len, large)))
        stream = await counter.open(call)
        await until(lambda: stream.received >= len(large[0]))
        counter.connection.session._streams.find(stream._number).received = len(large[0])
        stream.cancel()
        await until(lambda: counter.idle)
        [draft] = counter.drafts
        assert draft.response_hash == hashlib.sha256(call.salt + large[0]).digest()
        assert (draft.status, draft.response_bytes) == (Status.CANCELLED, len(large[0]))


async def test_an_answer_too_large_to_be_said_again_ends_with_its_connection() -> None:
    large = chunk("x" * 10_000)
    async with pausing(large, asyncio.Event(), END, replay_bytes=8 * (BESIDES + 10_000)) as counter:
        await cut(counter, order(counter), len(large))
        await counter.engine.closed.wait()
        await until(lambda: counter.idle)


async def test_an_answer_that_grows_too_large_while_its_client_is_away_ends() -> None:
    go = asyncio.Event()
    async with pausing(HELLO, go, chunk("x" * 10_000), END, replay_bytes=8 * (BESIDES + 10_000)) as counter:
        await cut(counter, order(counter), len(HELLO))
        go.set()
        await counter.engine.closed.wait()
        await until(lambda: counter.idle)
        assert [draft.status for draft in counter.drafts] == [Status.FAILED]


async def test_an_executor_that_stops_waits_for_nobody() -> None:
    async with pausing(HELLO, asyncio.Event(), END) as counter:
        await cut(counter, order(counter), len(HELLO))
        async with asyncio.timeout(30):
            await counter.serving.close()
        assert counter.engine.closed.is_set()
        assert [draft.status for draft in counter.drafts] == [Status.FAILED]


async def test_who_is_sent_away_is_not_waited_for(tmp_path: Path) -> None:
    async with market(tmp_path / "ledger.sqlite", *[WORD] * 30, asyncio.Event, drain_seconds=0.05, **KEPT) as it:
        (worker,) = it.workers
        stream = await worker.open(it.call(10**6))
        await worker.engine.hung.wait()
        await worker.executor.listener.close()
        await refusal(stream)
        async with asyncio.timeout(30):
            await worker.engine.closed.wait()
            await until(lambda: not worker.desk.tasks)
        assert (await it.state()).charged == 0


async def test_who_is_away_before_its_turn_leaves_the_queue() -> None:
    go = asyncio.Event()
    async with pausing(HELLO, go, END) as counter:
        counter.engine.limits = Limits(parallel=1)
        stream = await counter.open(order(counter))
        await counter.engine.hung.wait()
        connection = await dialled(counter.executor, counter.client)
        call = order(counter)
        await sent(connection, call)
        [gate] = counter.serving._gates.values()
        await until(lambda: gate._waiting == 1)
        await broken(counter, connection)
        async with asyncio.timeout(30):
            await until(lambda: gate._waiting == 0)
        go.set()
        assert await read_all(stream) == HELLO
        assert (await counter.ask(call))[0] == HELLO, "it can be sent again, and has its turn"


# An order that came to nothing


@pytest.mark.parametrize("script", [(RetryElsewhere("down", code="backend_away"),), ()], ids=["failed", "silent"])
async def test_an_order_of_which_nothing_was_said_or_billed_can_be_sent_again(script: tuple[Any, ...]) -> None:
    async with opened(**KEPT) as counter:
        well, counter.engine.script = counter.engine.script, script
        call = order(counter)
        await counter.refusal(call)
        await until(lambda: counter.idle)
        counter.engine.script = well
        assert (await counter.ask(call))[0] == HELLO + WORLD
        await until(lambda: counter.idle)
        assert [draft.status for draft in counter.drafts] == [Status.COMPLETE]


# What it costs


async def back(worker: Worker) -> Connection:
    """Another connection of the same client, in place of the one that it had."""
    worker.connection = await dialled_paid(worker.executor, worker.client, worker.told)
    return worker.connection


async def test_an_answer_that_is_said_again_costs_nothing_and_has_the_same_receipt(tmp_path: Path) -> None:
    async with market(tmp_path / "ledger.sqlite", **KEPT) as it:
        (worker,) = it.workers
        call = it.call(4 * FIRST)
        answer = await worker.ask(call)
        await until(lambda: len(worker.signed) == 1)
        first = worker.connection
        await back(worker)
        assert await worker.ask(call) == answer
        await until(lambda: len(worker.signed) == 2)
        assert worker.signed[0] == worker.signed[1]
        receipt = it.check(worker.signed[1], answer)
        state = await it.state()
        assert (state.charged, state.doubled, receipt.cost) == (receipt.cost, 0, INPUTS * 3 + 2 * 5)
        (slice_,) = worker.slices.values()
        await until(lambda: not slice_.unbilled)
        assert (slice_.spent, slice_.open, len(worker.engine.asked)) == (receipt.cost, 0, 1)
        await first.close()
        await worker.connection.close()


async def test_who_is_back_is_asked_for_vouchers_where_it_is_and_pays_once(tmp_path: Path) -> None:
    words = 6 * WINDOW
    async with market(tmp_path / "ledger.sqlite", *[WORD] * words, END, **KEPT) as it:
        (worker,) = it.workers
        call = it.call(FIRST)
        stream = await worker.open(call)
        await until(lambda: bool(worker.needs))
        assert stream.received <= len(WORD) * WINDOW
        first, worker.told = worker.connection, Told()
        worker.told.on_need = lambda need: worker.connection.send_control(it.voucher(need))
        first.wire.abort()
        await until(lambda: not worker.executor.listener.connections)
        await back(worker)
        assert await worker.ask(replace(call, voucher=it.voucher(FIRST + 5))) == WORD * words
        await until(lambda: bool(worker.signed))
        [signed] = worker.signed
        receipt = it.check(signed, WORD * words)
        assert (receipt.status, receipt.output_tokens, worker.engine.open) == (Status.COMPLETE, words, 0)
        state = await it.state()
        assert (state.charged, state.doubled, len(worker.engine.asked)) == (receipt.cost, 0, 1)
        await worker.connection.close()


async def test_who_hangs_up_and_never_comes_back_pays_as_if_nobody_had_waited(tmp_path: Path) -> None:
    async with market(tmp_path / "ledger.sqlite", *[WORD] * 30, asyncio.Event, **SOON) as it:
        (worker,) = it.workers
        charged = []
        for number in range(1, 4):
            worker.engine.hung.clear()
            worker.engine.closed.clear()
            connection = await dialled_paid(worker.executor, it.client, Told())
            await sent(connection, it.call(number * 10 * FIRST))
            await worker.engine.hung.wait()
            connection.wire.abort()
            await worker.engine.closed.wait()
            await until(lambda: not (worker.serving.running or worker.desk.tasks))
            charged.append((await it.state()).charged)
        assert charged == [0, 0, INPUTS * 3 + 30 * 5]


async def test_a_client_that_is_back_too_late_is_refused_and_billed_for_what_was_sent(tmp_path: Path) -> None:
    async with market(tmp_path / "ledger.sqlite", *[WORD] * 30, asyncio.Event, **SOON) as it:
        (worker,) = it.workers
        worker.desk.till.forgive = lambda *_: False  # type: ignore[method-assign]
        call = it.call(10 * FIRST)
        connection = await dialled_paid(worker.executor, it.client, Told())
        await sent(connection, call)
        await worker.engine.hung.wait()
        connection.wire.abort()
        await worker.engine.closed.wait()
        await until(lambda: not (worker.serving.running or worker.desk.tasks))
        assert kind(await worker.refusal(call)) == (RetryElsewhere, 409, "replayed")
        assert (await it.state()).charged == INPUTS * 3 + 30 * 5


async def test_who_is_away_when_the_executor_stops_is_billed_and_nothing_interrupts_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting, go, count = threading.Event(), threading.Event(), Run._count_text

    def slowly(self: Run, body: bytes, length: int) -> tuple[int, int]:
        counting.set()
        assert go.wait(30)
        return count(self, body, length)

    monkeypatch.setattr(Run, "_count_text", slowly)
    async with market(tmp_path / "ledger.sqlite", *[WORD] * 30, asyncio.Event, **KEPT) as it:
        (worker,) = it.workers
        worker.desk.till.forgive = lambda *_: False  # type: ignore[method-assign]
        connection = await dialled_paid(worker.executor, it.client, Told())
        await sent(connection, it.call(10 * FIRST))
        await worker.engine.hung.wait()
        connection.wire.abort()
        [running] = worker.serving._orders._running.values()
        await until(lambda: running.away is not None)
        first = asyncio.create_task(worker.serving.close())
        await until(counting.is_set)
        second = asyncio.create_task(worker.serving.close())
        running.expire()  # its deadline
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, second)
        await until(lambda: not worker.desk.tasks)
        assert (await it.state()).charged == INPUTS * 3 + 30 * 5
