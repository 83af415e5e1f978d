"""Many callers at once, and what each of them got. The mock says the same to the same question, so every answer is checked."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
import msgspec

from lloom.core.sse import Splitter, payload
from tests.faults.sellers import MODEL, answer

Ending = Literal["whole", "error in band", "refused", "wrong text", "cut"]


@dataclass(frozen=True)
class Got:
    """What one caller got, after how many seconds, from how many executors."""

    ending: Ending
    seconds: float
    attempts: int
    detail: str = ""


@dataclass
class Result:
    """What all of them got."""

    got: list[Got] = field(default_factory=list)

    def count(self, *endings: Ending) -> int:
        return sum(each.ending in endings for each in self.got)

    @property
    def rescued(self) -> int:
        """Whole answers that took more than one executor."""
        return sum(each.ending == "whole" and each.attempts > 1 for each in self.got)

    @property
    def longest(self) -> float:
        return max((each.seconds for each in self.got), default=0.0)

    @property
    def details(self) -> Counter[str]:
        return Counter(each.detail for each in self.got if each.detail)


def question(number: int, stream: bool, **fields: Any) -> bytes:
    messages = [{"role": "user", "content": f"Question number {number}"}]
    return msgspec.json.encode({"model": MODEL, "messages": messages, "stream": stream, **fields})


def expected(number: int) -> str:
    return answer(question(number, False))


async def run(
    port: int, requests: int, parallel: int, pause: float = 0.0, heard: Callable[[], None] = lambda: None, **fields: Any
) -> Result:
    """`requests` questions, `parallel` at once, every second one streamed. `heard` is called at each first content of a stream.

    `pause`: seconds that a reader of a stream waits after its first bytes.
    """
    result, numbers = Result(), iter(range(requests))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=aiohttp.ClientTimeout(total=60)) as session:

        async def caller() -> None:
            for number in numbers:
                began = time.monotonic()
                ask = _stream if number % 2 else _plain
                ending, attempts, detail = await ask(session, number, pause, heard, fields)
                result.got.append(Got(ending, time.monotonic() - began, attempts, detail))

        async with asyncio.TaskGroup() as group:
            for _ in range(parallel):
                group.create_task(caller())
    return result


async def _plain(
    session: aiohttp.ClientSession, number: int, _pause: float, _heard: Callable[[], None], fields: dict[str, Any]
) -> tuple[Ending, int, str]:
    async with session.post("/v1/chat/completions", data=question(number, False, **fields)) as reply:
        body = msgspec.json.decode(await reply.read())
        if reply.status != 200:
            return "refused", 0, f"{reply.status} {body['error']['code']}"
        attempts = int(reply.headers["x-lloom-attempts"])
        text = body["choices"][0]["message"]["content"]
        return ("whole" if text == expected(number) else "wrong text"), attempts, ""


async def _stream(
    session: aiohttp.ClientSession, number: int, pause: float, heard: Callable[[], None], fields: dict[str, Any]
) -> tuple[Ending, int, str]:
    async with session.post("/v1/chat/completions", data=question(number, True, **fields)) as reply:
        if reply.status != 200:
            body = msgspec.json.decode(await reply.read())
            return "refused", 0, f"{reply.status} {body['error']['code']}"
        said, attempts, splitter = "", 0, Splitter()
        async for data in reply.content.iter_any():
            for event in splitter.feed(data):
                if event.startswith(b": lloom "):
                    attempts = msgspec.json.decode(event[8:])["attempts"]
                elif payload(event) == b"[DONE]":
                    return ("whole" if said == expected(number) else "wrong text"), attempts, ""
                elif chunk := payload(event):
                    decoded = msgspec.json.decode(chunk)
                    if "error" in decoded:
                        partial = expected(number).startswith(said)
                        return ("error in band" if partial else "wrong text"), attempts, decoded["error"]["code"]
                    first = not said
                    said += "".join(choice["delta"].get("content") or "" for choice in decoded["choices"])
                    if first and said:
                        heard()
                        await asyncio.sleep(pause)
        return "cut", attempts, ""
