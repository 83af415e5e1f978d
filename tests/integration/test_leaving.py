"""A caller that leaves, in each state of its request: the executors' work stops, and nothing of it is left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from lloom.adapters.bridge import Stream
from lloom.core.errors import RetryElsewhere
from lloom.core.routing.hedging import Hedging
from tests.integration.gateway_support import FIRST, ask
from tests.integration.test_router_bridge import Network, Worker, network


class Tracked(Worker):
    """It takes one request at a time, and says how far it came with each."""

    def __init__(self, price: int, *script: bytes | Exception) -> None:
        self.plays = script
        self.working = 0
        self.reached = asyncio.Event()
        self.over = asyncio.Event()
        super().__init__(price, _play)

    def _model(self, name: str) -> object:  # type: ignore[override]
        return msgspec.structs.replace(super()._model(name), parallel=1, features=("prefill",))


async def _play(worker: Worker, stream: Stream) -> None:
    assert isinstance(worker, Tracked)
    worker.working += 1
    try:
        for part in worker.plays:
            if isinstance(part, Exception):
                raise part
            await stream.send(part)
        worker.reached.set()
        await asyncio.Event().wait()
    finally:
        worker.working -= 1
        worker.over.set()


async def left(net: Network, there: Callable[[], bool], *, stream: bool) -> None:
    """Asks, and hangs up when it is `there`; returns when nothing of the request is under way any more."""
    body = ask(stream=stream)
    async with net.http.connected() as (_, writer):
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
        writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
        while not there():  # noqa: ASYNC110 - no event of asyncio's
            await asyncio.sleep(0.001)
    while net.http.gateway.metrics.text().count(b"lloom_requests_running 1.0"):  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def idle(net: Network, *workers: Worker) -> bool:
    """Whether no request counts as under way, at anybody."""
    return not any(net.outcomes.load((each.address, each.endpoint, "m")) for each in workers)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize("script", [(), (FIRST,)], ids=["before content", "within"])
async def test_at_one_executor(script: tuple[bytes, ...], stream: bool) -> None:
    worker = Tracked(1, *script)
    async with network(worker) as net:
        await left(net, worker.reached.is_set, stream=stream)
        await worker.over.wait()
        assert idle(net, worker)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize("script", [(), (FIRST,)], ids=["before content", "within"])
async def test_at_the_one_that_goes_on(script: tuple[bytes, ...], stream: bool) -> None:
    first, second = Tracked(1, FIRST, RetryElsewhere("broke")), Tracked(2, *script)
    async with network(first, second) as net:
        await left(net, second.reached.is_set, stream=stream)
        await second.over.wait()
        assert (first.working, second.working, idle(net, first, second)) == (0, 0, True)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
async def test_at_two_of_which_one_is_a_hedge(stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hedging, "delay", lambda *_: 0.05)
    monkeypatch.setattr(Hedging, "take", lambda _: True)
    workers = Tracked(1), Tracked(2)
    async with network(*workers) as net:
        await left(net, lambda: all(each.reached.is_set() for each in workers), stream=stream)
        for each in workers:
            await each.over.wait()
        assert idle(net, *workers)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
async def test_in_the_line(stream: bool) -> None:
    worker = Tracked(1, FIRST)
    async with network(worker, queue=4) as net:
        waiting = net.router.finder.waiting
        holds = asyncio.create_task(left(net, lambda: worker.reached.is_set() and gone, stream=True))
        gone = False
        await worker.reached.wait()
        body = ask(stream=stream)
        async with net.http.connected() as (_, writer):
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n")
            writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
            while not len(waiting):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        while len(waiting):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        gone = True
        await holds
        await worker.over.wait()
        assert (len(worker.bodies), idle(net, worker), waiting.refused) == (1, True, 0)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "plain"])
async def test_while_the_executor_is_dialled(stream: bool) -> None:
    worker = Tracked(1)
    async with network(worker) as net:
        await net.router.models()  # its offer is known
        for connection in tuple(worker.listener.connections):
            connection.wire.abort()
        while net.pool.connections:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        dialled, dial = asyncio.Event(), net.pool._dial

        async def never(*_: object) -> object:
            dialled.set()
            return await asyncio.Event().wait()

        net.pool._dial = never  # type: ignore[assignment]
        await left(net, dialled.is_set, stream=stream)
        assert idle(net, worker)
        net.pool._dial = dial
