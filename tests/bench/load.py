"""The load generator, a process of its own: `Job` as JSON on stdin, `Sample` as JSON on stdout. It knows no system by name.

Each client sends a request, reads the answer to its end, and sends the next, on one connection. The first answers of each are
decoded whole and fix how many chunks there must be; every later one must be complete and have as many.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from typing import Any

import httptools
import msgspec
import uvloop
from msgspec import Struct

ANSWER_SECONDS = 30.0
"""The longest an answer may take."""
WARM = 2
"""Answers of each client that are not counted."""
_CONTENT = re.compile(rb'"content":\s*"[^"]')
_END = re.compile(rb"data: \[DONE\]\s*\Z")


class Job(Struct, frozen=True):
    """What to send where. `seconds` is how long new requests are sent; `tokens` is the length of each answer."""

    port: int
    model: str
    stream: bool
    clients: int
    tokens: int
    seconds: float
    key: str = "none"


class Sample(Struct):
    """What came of it. `seconds` last until the last answer; `times` and `first` (to the first content) are milliseconds."""

    seconds: float = 0.0
    chunks: int = 0
    times: list[float] = []
    first: list[float] = []


class Incomplete(Exception):
    """Raised when an answer is not what was asked for; the benchmark would compare nothing."""


def run(job: Job) -> Sample:
    """One job, in a new process."""
    found = subprocess.run(
        [sys.executable, "-m", "tests.bench.load"],
        input=msgspec.json.encode(job),
        capture_output=True,
        timeout=job.seconds + 2 * ANSWER_SECONDS,
        check=False,
    )
    if found.returncode:
        raise Incomplete(found.stderr.decode(errors="replace").strip().rpartition("\n")[2])
    return msgspec.json.decode(found.stdout, type=Sample)


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, job: Job) -> None:
        self.first = 0.0
        self.chunks = 0
        self._job = job
        self._request = request(job)
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._done: asyncio.Future[None] | None = None

    async def ask(self) -> bytes:
        """The body of one answer; `first` is when its first content came."""
        self._body.clear()
        self.first = 0.0
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(self._request)
        await self._done
        body = b"".join(self._body)
        if self._parser.get_status_code() != 200:
            raise Incomplete(f"status {self._parser.get_status_code()}: {body[:500]!r}")
        return body

    def check(self, body: bytes) -> None:
        """Incomplete unless it is as long as the first one was, and has an end."""
        if self._job.stream:
            if not _END.search(body) or body.count(b"data: {") != self.chunks:
                raise Incomplete(
                    f"{body.count(b'data: {')} chunks instead of {self.chunks}, or no end: {body[-200:]!r}"
                )
        elif length(msgspec.json.decode(body)) != self._job.tokens:
            raise Incomplete(f"not {self._job.tokens} tokens: {body[:500]!r}")

    def learn(self, body: bytes) -> None:
        """Decodes a whole stream: it must have the wanted pieces of content."""
        if self._job.stream:
            events = [msgspec.json.decode(event) for event in re.findall(rb"data: (\{.*\})", body)]
            pieces = [choice["delta"].get("content") for event in events for choice in event["choices"]]
            self.chunks = len(events)
            if (found := sum(map(bool, pieces))) != self._job.tokens:
                raise Incomplete(f"{found} pieces of content instead of {self._job.tokens}")
        self.check(body)

    # asyncio's side

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(Incomplete("the connection was closed within an answer"))

    def close(self) -> None:
        """Hangs up."""
        self._transport.close()

    # httptools' side

    def on_body(self, body: bytes) -> None:
        if not self.first and _CONTENT.search(body):
            self.first = time.perf_counter()
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)


def request(job: Job) -> bytes:
    """The bytes of a request, the same each time."""
    messages = [{"role": "user", "content": "Explain gravity in one sentence."}]
    body = {"model": job.model, "messages": messages, "max_tokens": job.tokens, "stream": job.stream}
    data = msgspec.json.encode(body)
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{job.port}\r\nauthorization: Bearer {job.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    ).encode() + data


def length(answer: dict[str, Any]) -> int:
    """Tokens of a plain answer: each word of the mock is one."""
    return len(answer["choices"][0]["message"]["content"].split())


async def drive(job: Job) -> Sample:
    """All clients, until the time is up."""
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Client(job), "127.0.0.1", job.port))[1] for _ in range(job.clients)
    ]
    for client in clients:
        for _ in range(WARM):
            client.learn(await client.ask())
    sample = Sample()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(_repeat(client, sample, began + job.seconds))
    sample.seconds = time.perf_counter() - began
    for client in clients:
        client.close()
    return sample


async def _repeat(client: Client, sample: Sample, until: float) -> None:
    began = time.perf_counter()
    while began < until:
        body = await client.ask()
        ended = time.perf_counter()
        client.check(body)
        sample.times.append((ended - began) * 1000)
        sample.first.append((client.first - began) * 1000)
        sample.chunks += client.chunks
        began = time.perf_counter()


async def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    async with asyncio.timeout(job.seconds + ANSWER_SECONDS):
        sample = await drive(job)
    sys.stdout.buffer.write(msgspec.json.encode(sample))


if __name__ == "__main__":
    uvloop.run(main())
