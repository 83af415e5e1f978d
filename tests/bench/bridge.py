"""What the bridge costs, over loopback with TLS, the executor in a process of its own: `python -m tests.bench.bridge`."""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection as Pipe

import uvloop

from lloom.adapters.bridge import Connection, Link, Listener, Service, Stream, dial
from lloom.core.identity import Identity
from lloom.core.messages import Control, OfferCall
from lloom.core.offer import Endpoint
from tests.integration.bridge_support import NETWORK, certificate, read_all, settings

TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":" token"}}],"object":"chunk"}\n\n'.ljust(80)
LOOPS: dict[str, Callable[[Awaitable[None]], None]] = {"uvloop": uvloop.run, "asyncio": asyncio.run}  # type: ignore[dict-item]


async def answer(stream: Stream) -> None:
    """Echoes `echo`; else sends as many tokens as it was asked for, one per turn of the loop if asked to be slow."""
    order = (await stream.receive() or b"").decode()
    if order == "echo":
        await stream.send(b"echo")
        await stream.finish()
        return
    pace, _, count = order.partition(" ")
    for _ in range(int(count)):
        await stream.send(TOKEN)
        if pace == "turn":
            await asyncio.sleep(0)
    await stream.finish()


def serve(pipe: Pipe, loop: str) -> None:
    """The executor's process."""

    async def main() -> None:
        identity = Identity.generate()
        service = Service(identity.address, NETWORK, settings(handshakes=512), answer, ignore)
        listener = await Listener.start("127.0.0.1", 0, certificate(identity), service)
        pipe.send((identity.address, listener.port))
        await asyncio.to_thread(pipe.recv)
        await listener.close()

    LOOPS[loop](main())


def ignore(_connection: Connection, _message: Control) -> None:
    """No control message is sent here."""


async def ask(connection: Connection, order: str) -> int:
    """The bytes of one answer."""
    stream = await connection.open(OfferCall())
    await stream.send(order.encode())
    await stream.finish()
    return len(await read_all(stream))


async def tokens(connection: Connection, streams: int, count: int, pace: str) -> float:
    """80-byte messages per second over `streams` streams."""
    began = time.perf_counter()
    sizes = await asyncio.gather(*(ask(connection, f"{pace} {count // streams}") for _ in range(streams)))
    assert sum(sizes) == count // streams * streams * len(TOKEN)
    return count / (time.perf_counter() - began)


async def measure(loop: str, address: bytes, port: int, count: int) -> None:
    """Prints one row per measure."""
    link = Link(Identity.generate(), NETWORK, settings())
    endpoint = Endpoint("127.0.0.1", port)

    async def connect() -> Connection:
        return await dial(endpoint, address, link, ignore)  # type: ignore[arg-type]

    connects, calls = [], []
    for _ in range(50):
        began = time.perf_counter()
        connection = await connect()
        connects.append(time.perf_counter() - began)
        await connection.close()
    connection = await connect()
    for _ in range(2000):
        began = time.perf_counter()
        await ask(connection, "echo")
        calls.append(time.perf_counter() - began)

    def row(name: str, value: float, unit: str) -> None:
        print(f"{loop:8} {name:44} {value:12,.2f} {unit}")

    row("connect + authenticate, p50", statistics.median(connects) * 1000, "ms")
    row("small call (open, data, end; answer), p50", statistics.median(calls) * 1000, "ms")
    row("small call, p99", statistics.quantiles(calls, n=100)[98] * 1000, "ms")
    row("messages on 1 stream", await tokens(connection, 1, count, "burst"), "/s")
    row("messages on 64 streams", await tokens(connection, 64, count, "burst"), "/s")
    row("messages on 1 stream, one per loop turn", await tokens(connection, 1, count // 4, "turn"), "/s")
    row("messages on 64 streams, one per loop turn", await tokens(connection, 64, count, "turn"), "/s")
    await connection.close()


def main() -> None:
    """Runs it on both event loops."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=400_000, help="messages per measure")
    parser.add_argument("--loop", choices=LOOPS, action="append", help="which event loop (both)")
    options = parser.parse_args()
    for loop in options.loop or LOOPS:
        here, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=serve, args=(there, loop))
        process.start()
        address, port = here.recv()
        try:
            LOOPS[loop](measure(loop, address, port, options.count))
        finally:
            here.send(None)
            process.join(10)


if __name__ == "__main__":
    main()
