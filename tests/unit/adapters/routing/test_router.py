from __future__ import annotations

import asyncio
import hashlib
import threading
from typing import Any

import msgspec
import pytest

from lloom.adapters.routing.answer import Answer
from lloom.core import tokens
from lloom.core.billing.quote import model_hash, quote_hash, quote_of
from lloom.core.billing.receipt import Receipt, Status, sign_receipt
from lloom.core.billing.request import check_request, request_hash
from lloom.core.errors import CallerFault, PeerFault, RetryElsewhere
from lloom.core.messages import Done, Receipts, SignedReceipt
from lloom.core.payment import audit
from lloom.core.reputation.evidence import Kind
from lloom.core.settings import AccountingSettings
from tests.unit.adapters.routing_support import (
    ANSWER,
    DOMAIN,
    DONE,
    END,
    HANG,
    HEL,
    LO,
    ROLE,
    FakeExecutor,
    FakeStream,
    Net,
    request,
    until,
)


async def read(answer: Answer) -> bytes:
    return b"".join([data async for data in answer])


async def failing(net: Net, **fields: Any) -> RetryElsewhere:
    with pytest.raises(RetryElsewhere) as caught:
        await net.router.ask(request(**fields))
    return caught.value


# --- the way of one request


async def test_an_answer_is_handed_out_at_its_first_content_with_all_that_came_before() -> None:
    executor = FakeExecutor(1)
    async with Net(executor) as net:
        answer = await net.router.ask(request())
        assert (answer.first, answer.executor, answer.attempts, answer.done) == (ROLE + HEL, executor.address, 1, None)
        assert await read(answer) == ROLE + HEL + LO + END
        assert answer.done == DONE
        assert not executor.chats[0].cancelled


async def test_what_is_sent_is_the_callers_body_under_a_signed_order() -> None:
    executor = FakeExecutor(1, price=7)
    async with Net(executor) as net:
        asked = request(max_tokens=100, n=2)
        await read(await net.router.ask(asked))
        [stream] = executor.chats
        assert (stream.body, stream.finished) == (asked.body, True)
        order = check_request(stream.call.request, stream.call.signature, DOMAIN, 0).request
        assert order.client == net.client.identity.address
        assert order.quote_hash == quote_hash(quote_of(executor.offer, executor.offer.models[0]))
        assert order.request_hash == request_hash(stream.call.salt, "chat", "m", asked.body)
        assert (order.max_input_tokens, order.max_output_tokens, order.max_cost) == (2048, 200, 1)


async def test_no_two_orders_are_alike() -> None:
    executor = FakeExecutor(1)
    async with Net(executor) as net:
        for _ in range(2):
            await read(await net.router.ask(request()))
        first, second = (check_request(s.call.request, s.call.signature, DOMAIN, 0).request for s in executor.chats)
        assert first.request_id != second.request_id
        assert executor.chats[0].call.salt != executor.chats[1].call.salt


async def test_an_empty_answer_with_an_end_is_an_answer() -> None:
    async with Net(FakeExecutor(1, script=[ROLE + END, DONE])) as net:
        answer = await net.router.ask(request())
        assert await read(answer) == answer.first == ROLE + END
        assert answer.done == DONE


# --- failover


@pytest.mark.parametrize(
    "script",
    [
        [RetryElsewhere("busy", status=429, code="busy")],
        [PeerFault("it lies")],
        [ROLE, RetryElsewhere("broke")],
        [ROLE, DONE],
        [b"data: nonsense\n\n"],
        [b'data: {"error":{"message":"out of memory"}}\n\n'],
        [ROLE] * 20_000,
    ],
    ids=["refuses", "lies", "breaks off", "ends without an answer", "talks nonsense", "error in-band", "only roles"],
)
async def test_until_the_first_content_another_executor_takes_over(script: list[Any]) -> None:
    bad, good = FakeExecutor(1, script=script), FakeExecutor(2)
    async with Net(bad, good) as net:
        answer = await net.router.ask(request())
        assert (answer.executor, answer.attempts) == (good.address, 2)
        assert await read(answer) == ROLE + HEL + LO + END
        assert bad.chats[0].cancelled or bad.chats[0].done


async def test_an_executor_that_cannot_be_reached_is_passed_over() -> None:
    bad, good = FakeExecutor(1), FakeExecutor(2)
    async with Net(bad, good) as net:
        await net.directory.candidates("m")
        bad.connections[0].break_off()
        bad.reach = RetryElsewhere("connection refused", code="unreachable")
        assert (await net.router.ask(request())).executor == good.address
        bad.reach = None
        assert (await net.router.ask(request())).executor == good.address  # it rests


async def test_one_that_stays_silent_is_given_up() -> None:
    bad, good = FakeExecutor(1, script=[ROLE, HANG]), FakeExecutor(2)
    async with Net(bad, good, first_token_seconds=0.01) as net:
        answer = await net.router.ask(request())
        assert (answer.executor, answer.attempts) == (good.address, 2)
        assert bad.chats[0].cancelled


async def test_the_callers_fault_is_not_tried_elsewhere() -> None:
    bad, good = FakeExecutor(1, script=[CallerFault("no such tool", param="tools")]), FakeExecutor(2)
    async with Net(bad, good) as net:
        with pytest.raises(CallerFault, match="no such tool"):
            await net.router.ask(request())
        assert good.chats == []
        assert net.outcomes.rests((bad.address, bad.endpoint, "m"), asyncio.get_running_loop().time()) == 0


async def test_when_all_fail_the_last_reason_is_told() -> None:
    busy = RetryElsewhere("all places taken", status=429, code="busy", retry_after=3)
    first, second = FakeExecutor(1, script=[RetryElsewhere("broke")]), FakeExecutor(2, script=[busy])
    async with Net(first, second) as net:
        error = await failing(net)
        assert (error.status, error.code, error.retry_after) == (429, "busy", 3)
        assert "2 attempts" in str(error)
        assert "all places taken" in str(error)


async def test_there_are_no_more_attempts_than_set() -> None:
    executors = [FakeExecutor(number, script=[RetryElsewhere("broke")]) for number in range(1, 5)]
    async with Net(*executors, attempts=2) as net:
        await failing(net)
        assert sum(len(executor.chats) for executor in executors) == 2


async def test_a_quote_that_is_no_longer_known_makes_us_ask_for_the_offer_again() -> None:
    executor = FakeExecutor(1, script=[RetryElsewhere("unknown quote", status=409, code="quote")])
    async with Net(executor) as net:
        await failing(net)
        executor.script = list(ANSWER)
        await read(await net.router.ask(request()))
        assert executor.offer_calls == 2


# --- after the first content


async def test_an_answer_that_nobody_can_go_on_with_ends_with_the_error() -> None:
    bad, good = FakeExecutor(1, script=[ROLE, HEL, RetryElsewhere("broke")]), FakeExecutor(2)
    async with Net(bad, good) as net:
        answer = await net.router.ask(request())
        with pytest.raises(RetryElsewhere, match="broke"):
            await read(answer)
        assert good.chats == []
        assert (await net.router.ask(request())).executor == good.address  # but it is remembered


async def test_a_stall_within_an_answer_ends_it() -> None:
    executor = FakeExecutor(1, script=[HEL, HANG])
    async with Net(executor, between_tokens_seconds=0.01) as net:
        with pytest.raises(RetryElsewhere) as caught:
            await read(await net.router.ask(request()))
        assert (caught.value.status, caught.value.code) == (504, "stalled")
        assert executor.chats[0].cancelled


async def test_the_rest_of_a_broken_answer_may_take_no_longer_than_any_other_part() -> None:
    executor = FakeExecutor(1, script=[HEL, RetryElsewhere("lost", code="connection_lost")])
    async with Net(executor, between_tokens_seconds=0.01) as net:
        answer = await net.router.ask(request())
        executor.connections[0].break_off()
        executor.reach = asyncio.Event()
        with pytest.raises(RetryElsewhere) as caught:
            await read(answer)
        assert caught.value.code == "stalled"
        executor.reach.set()


async def test_a_slow_reader_is_no_stall() -> None:
    executor = FakeExecutor(1)
    async with Net(executor, between_tokens_seconds=0.01) as net:
        answer = await net.router.ask(request())
        await asyncio.sleep(0.03)
        assert await read(answer) == ROLE + HEL + LO + END


async def test_the_whole_has_a_deadline_too() -> None:
    executor = FakeExecutor(1, script=[HEL, HANG])
    async with Net(executor, total_seconds=0.02) as net:
        with pytest.raises(RetryElsewhere) as caught:
            await read(await net.router.ask(request()))
        assert caught.value.status == 504


async def test_a_network_that_names_nobody_in_time_is_a_504() -> None:
    async with Net(FakeExecutor(1, reach=asyncio.Event()), total_seconds=0.01) as net:
        assert (await failing(net)).code == "deadline"


async def test_closing_an_answer_cancels_the_work() -> None:
    executor = FakeExecutor(1)
    async with Net(executor) as net:
        answer = await net.router.ask(request())
        await answer.close()
        assert executor.chats[0].cancelled
        assert await answer.read() is None


async def test_a_caller_that_leaves_before_the_first_content_cancels_the_work() -> None:
    executor = FakeExecutor(1, script=[HANG])
    async with Net(executor) as net:
        asking = asyncio.create_task(net.router.ask(request()))
        await executor.hung.wait()
        place = executor.address, executor.endpoint, "m"
        assert net.outcomes.load(place) == 1
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert executor.chats[0].cancelled
        assert net.outcomes.load(place) == 0
        assert net.outcomes.rests(place, asyncio.get_running_loop().time()) == 0


# --- nobody


async def test_a_model_that_nobody_announces_does_not_exist_and_near_names_are_told() -> None:
    async with Net(FakeExecutor(1, models=("smollm2-135m",))) as net:
        for _ in ("looked up", "remembered"):
            with pytest.raises(CallerFault, match=r"Did you mean smollm2-135m\?") as caught:
                await net.router.ask(request(model="smollm-135m"))
            assert (caught.value.status, caught.value.code) == (404, "model_not_found")


async def test_without_a_network_nothing_is_said_about_models() -> None:
    async with Net() as net:
        net.dht.peers = 0
        error = await failing(net)
        assert (error.status, error.code) == (503, "no_executor")
        assert "bootstrap" in str(error)


async def test_executors_that_cannot_be_reached_are_the_reason() -> None:
    async with Net(FakeExecutor(1, reach=RetryElsewhere("connection refused"))) as net:
        error = await failing(net)
        assert (error.status, error.code) == (503, "no_executor")
        assert "connection refused" in str(error)


async def test_executors_that_rest_are_the_reason_and_when_they_are_back() -> None:
    executor = FakeExecutor(1, script=[PeerFault("it lies")])
    async with Net(executor) as net:
        await failing(net)
        error = await failing(net)
        assert (error.status, error.code) == (503, "no_executor")
        assert error.retry_after is not None
        assert 0 < error.retry_after <= 5


async def test_a_prompt_that_is_too_long_for_everybody_is_the_callers_fault() -> None:
    async with Net(FakeExecutor(1)) as net:
        with pytest.raises(CallerFault) as caught:
            await net.router.ask(request(messages=[{"role": "user", "content": "x" * 100_000}]))
        assert (caught.value.status, caught.value.code) == (400, "context_length_exceeded")


# --- receipts


def receipt(executor: FakeExecutor, stream: FakeStream, delivered: bytes, **fields: Any) -> SignedReceipt:
    """What an honest executor signs after `delivered`."""
    checked = check_request(stream.call.request, stream.call.signature, DOMAIN, 0)
    honest = Receipt(
        request_digest=checked.digest,
        model=model_hash("m"),
        response_hash=hashlib.sha256(stream.call.salt + delivered).digest(),
        response_bytes=len(delivered),
        input_tokens=3,
        cached_tokens=0,
        output_tokens=2,
        cost=1,
        lane_seq=1,
        lane_charged=1,
        started_at=1,
        finished_at=2,
        status=Status.COMPLETE,
    )
    return sign_receipt(msgspec.structs.replace(honest, **fields), executor.identity, DOMAIN)


async def test_a_receipt_true_to_what_arrived_is_handed_on_once() -> None:
    executor = FakeExecutor(1)
    async with Net(executor) as net:
        answer = await net.router.ask(request())
        signed = receipt(executor, executor.chats[0], await read(answer))
        for _ in range(2):
            net.deliveries.on_control(executor.connections[0], Receipts([signed]))
        assert net.receipts == [(executor.address, signed)]


async def test_a_receipt_that_overtakes_the_end_waits_for_it() -> None:
    executor = FakeExecutor(1)
    async with Net(executor) as net:
        answer = await net.router.ask(request())
        signed = receipt(executor, executor.chats[0], ROLE + HEL + LO + END)
        net.deliveries.on_control(executor.connections[0], Receipts([signed]))
        assert net.receipts == []
        await read(answer)
        assert net.receipts == [(executor.address, signed)]


async def test_a_cancelled_answer_is_receipted_up_to_what_arrived() -> None:
    executor = FakeExecutor(1, script=[ROLE, HEL, LO, HANG])
    async with Net(executor) as net:
        answer = await net.router.ask(request())
        executor.chats[0].received += len(LO)  # it is here, but nobody has read it
        await answer.close()
        signed = receipt(executor, executor.chats[0], ROLE + HEL + LO, status=Status.CANCELLED)
        net.deliveries.on_control(executor.connections[0], Receipts([signed]))
        assert net.receipts == [(executor.address, signed)]


@pytest.mark.parametrize(
    "lie", [{"cost": 2}, {"response_bytes": 9}, {"output_tokens": 513}, {"request_digest": bytes(32)}]
)
async def test_a_receipt_that_lies_is_dropped(lie: dict[str, Any]) -> None:
    executor = FakeExecutor(1)
    async with Net(executor) as net:
        answer = await net.router.ask(request())
        signed = receipt(executor, executor.chats[0], await read(answer), **lie)
        net.deliveries.on_control(executor.connections[0], Receipts([signed]))
        assert net.receipts == []


async def test_nobody_sends_receipts_for_others() -> None:
    executor, other = FakeExecutor(1), FakeExecutor(2)
    async with Net(executor, other) as net:
        answer = await net.router.ask(request())
        signed = receipt(executor, executor.chats[0], await read(answer))
        net.deliveries.on_control(other.connections[0], Receipts([signed, SignedReceipt(b"rubbish", bytes(65))]))
        assert net.receipts == []
        await until(lambda: True)


# --- what it counts


@pytest.mark.parametrize(("reported", "share"), [(DONE, 0.0), (Done(3, 2000), 1.0), (Done(3000, 2), 1.0)])
async def test_who_reports_more_tokens_than_came_is_remembered_for_that(reported: Done, share: float) -> None:
    executor = FakeExecutor(1, [ROLE, HEL, LO + END, reported])
    async with Net(executor) as net:
        assert await read(await net.router.ask(request())) == ROLE + HEL + LO + END
        known = net.outcomes.reputations.evidence(executor.address, asyncio.get_running_loop().time())
        assert known.wrong[Kind.COUNT] == pytest.approx(share, rel=0.01)
        assert known.right[Kind.COUNT] == pytest.approx(1 - share, rel=0.01)


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_count_whose_table_has_to_be_read_first_holds_up_no_other_answer(
    loaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once: list[bool] = []
    problem = audit.problem

    def noted(report: audit.Report, settings: AccountingSettings) -> str | None:
        at_once.append(threading.current_thread() is threading.main_thread())
        return problem(report, settings)

    monkeypatch.setattr(audit, "problem", noted)
    monkeypatch.setattr(tokens, "loaded", lambda _: loaded)
    await test_who_reports_more_tokens_than_came_is_remembered_for_that(Done(3, 2000), 1.0)
    assert at_once == [loaded]
