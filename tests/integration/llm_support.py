"""What the tests of the backends share: a mock to talk to, requests, and the reading of streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from lloom.adapters.llm.mock_server import Behaviour, MockServer
from lloom.core import sse
from lloom.core.settings import Faults, Model

NO_FAULTS = Faults(error=0, stall=0, cut=0, wrong_usage=0, seed=0)


@asynccontextmanager
async def mock(
    tokens: int = 20,
    first_token_seconds: float = 0,
    token_seconds: float = 0,
    faults: Faults = NO_FAULTS,
    models: tuple[str, ...] = ("mock",),
    port: int = 0,
    **more: Any,
) -> AsyncIterator[MockServer]:
    behaviour = Behaviour(models, tokens, first_token_seconds, token_seconds, faults, **more)
    async with MockServer.run(behaviour, "127.0.0.1", port) as server:
        yield server


def model(name: str | None = None, **fields: Any) -> Model:
    return Model(**{"context": 4096, "name": name, **fields})


def ask(text: str = "Hello there", **fields: Any) -> bytes:
    return msgspec.json.encode({"model": "mock", "messages": [{"role": "user", "content": text}], **fields})


def complete(prompt: Any = "Once upon a time", **fields: Any) -> bytes:
    return msgspec.json.encode({"model": "mock", "prompt": prompt, **fields})


def embed(*texts: Any, **fields: Any) -> bytes:
    return msgspec.json.encode({"model": "mock", "input": list(texts), **fields})


async def until(met: Callable[[], bool]) -> None:
    """Lets the loop run until `met`."""
    async with asyncio.timeout(20):
        while not met():  # noqa: ASYNC110 - the mock counts, it does not tell
            await asyncio.sleep(0)


async def read(answer: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([data async for data in answer])


def events(answer: bytes) -> list[Any]:
    """The JSON of every event before `[DONE]`, which must be the last."""
    *chunks, last = [sse.payload(event) for event in sse.Splitter().feed(answer)]
    assert last == sse.DONE
    return [msgspec.json.decode(chunk) for chunk in chunks]


def text(chunks: list[Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def texts(chunks: list[Any]) -> dict[int, str]:
    """What a completion says, by choice."""
    said: dict[int, str] = {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        said[choice["index"]] = said.get(choice["index"], "") + choice["text"]
    return said


def finish(chunks: list[Any]) -> str | None:
    return next((c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]), None)


def usage(chunks: list[Any]) -> Any:
    assert chunks[-1]["choices"] == []
    return chunks[-1]["usage"]
