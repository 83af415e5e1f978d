"""The gateway alone, with a router that answers at once: `python -m tests.bench.gateway` prints a table.

Client and gateway share one process and its event loop (uvloop), so the figures are of both together.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable

import uvloop

from tests.integration.gateway_support import (
    FIRST,
    REST,
    Running,
    ScriptedAnswer,
    ScriptedRouter,
    ask,
    read_reply,
    running,
)

CHUNKS = 20_000


async def requests(gateway: Running, body: bytes, count: int) -> list[float]:
    """Milliseconds of each of `count` requests on one connection."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
    times = []
    async with gateway.connected() as (reader, writer):
        for _ in range(count):
            began = time.perf_counter()
            writer.write(head + body)
            await read_reply(reader)
            times.append((time.perf_counter() - began) * 1000)
    return times


async def latency(gateway: Running, stream: bool) -> str:
    await requests(gateway, ask(stream=stream), 300)
    times = await requests(gateway, ask(stream=stream), 2000)
    return f"{statistics.median(times):8.2f} ms p50 {statistics.quantiles(times, n=100)[98]:8.2f} ms p99"


async def rate(gateway: Running, clients: int) -> str:
    began = time.perf_counter()
    await asyncio.gather(*(requests(gateway, ask(), 400) for _ in range(clients)))
    return f"{clients * 400 / (time.perf_counter() - began):8.0f} requests/s"


async def chunks(gateway: Running, stream: bool) -> str:
    gateway.router.script = lambda _: ScriptedAnswer(FIRST, [REST[0]] * CHUNKS + [REST[1]])
    began = time.perf_counter()
    await requests(gateway, ask(stream=stream), 3)
    gateway.router.script = lambda _: ScriptedAnswer()
    return f"{3 * CHUNKS / (time.perf_counter() - began):8.0f} chunks/s"


async def main() -> None:
    rows: list[tuple[str, Callable[[Running], Awaitable[str]]]] = [
        ("plain, one client", lambda gateway: latency(gateway, stream=False)),
        ("streamed (4 chunks), one client", lambda gateway: latency(gateway, stream=True)),
        ("plain, 16 clients", lambda gateway: rate(gateway, 16)),
        ("streamed, one write each, one client", lambda gateway: chunks(gateway, stream=True)),
        ("folded, one client", lambda gateway: chunks(gateway, stream=False)),
    ]
    async with running(ScriptedRouter(), max_body=1 << 24) as gateway:
        for name, measure in rows:
            print(f"{name:40}{await measure(gateway)}")


if __name__ == "__main__":
    uvloop.run(main())
