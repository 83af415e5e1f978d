"""Executors for `just faults`: real ones, with a fault behind them or within. Each listens on loopback and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lloom.adapters.bridge import Listener, Service, Stream
from lloom.adapters.llm import mock_answers
from lloom.adapters.llm.openai import OpenAIEngine
from lloom.adapters.serving import Serving
from lloom.core.eip712 import Domain
from lloom.core.identity import Identity, NodeId
from lloom.core.messages import Done, OfferCall
from lloom.core.offer import Endpoint, ModelOffer, Offer, fingerprint, seal
from lloom.core.settings import ExecutorSettings, Model, OpenAIBackend, Resources
from lloom.core.sse import event
from tests.integration.bridge_support import NETWORK, certificate, settings

MODEL = "m"
NOWHERE = Endpoint("127.0.0.1", 1)
TOKENS = 40
"""Of each answer."""
IDLE_SECONDS = 30.0
"""Longer than a client waits: it is the client that gives up."""
EXECUTOR = ExecutorSettings(
    workers=1,
    worker=Resources(num_cpus=0, num_gpus=0),
    max_body=1 << 20,
    bodies=1 << 28,
    queue=256,
    queue_seconds=30,
    request_seconds=60,
    requests_per_client=256,
    replay_bytes=1 << 24,
    replay_seconds=10,
    discovery_seconds=60,
    discovered_models=1,
)
BEGINNING, HANG_UP = object(), object()
Handler = Callable[[Stream], Coroutine[Any, Any, None]]


@dataclass
class Seller:
    """An executor as the DHT names it; `price` decides who is asked first."""

    price: int
    features: tuple[str, ...] = ("prefill",)
    endpoint: Endpoint = NOWHERE
    models: tuple[str, ...] = (MODEL,)
    parallel: int = 64
    identity: Identity = field(default_factory=Identity.generate)
    listener: Listener | None = None

    def kill(self) -> None:
        """Breaks every connection to it; it lives on."""
        assert self.listener is not None
        for connection in tuple(self.listener.connections):
            connection.wire.abort()

    @property
    def address(self) -> NodeId:
        return self.identity.address

    @property
    def offer(self) -> Offer:
        terms = ModelOffer(
            id=MODEL,
            context=8192,
            max_output=4096,
            parallel=self.parallel,
            encoding="o200k_base",
            features=self.features,
            backend="mock",
            output_price=self.price,
        )
        return Offer(
            executor=self.address,
            seq=1,
            expires=1 << 40,
            endpoints=(self.endpoint,),
            models=(terms,),
            software="faults",
        )

    @property
    def sealed(self) -> bytes:
        return seal(self.offer, self.identity, NETWORK)

    @property
    def fingerprint(self) -> bytes:
        return fingerprint(self.sealed)


@asynccontextmanager
async def serving(seller: Seller, mock_url: str, fault: str) -> AsyncIterator[Seller]:
    """An executor whose backend is the mock, told to commit `fault`."""
    backend = OpenAIBackend(
        base_url=f"{mock_url}/v1",
        provider=None,
        models={MODEL: Model(context=8192, name=f"{MODEL}@{fault}", features=seller.features)},
        parallel=64,
        requests_per_minute=None,
        tokens_per_minute=None,
        key_env=None,
        limit_field="max_tokens",
        prefill_fields={},
        connect_seconds=5,
        idle_seconds=IDLE_SECONDS,
    )
    engine = OpenAIEngine("mock", backend, most=1)
    await engine.start()
    await engine.look()
    counter = Serving(EXECUTOR, settings(), Domain(), {MODEL: (engine, seller.offer.models[0])}, lambda *_: None)
    async with listening(seller, counter.handle):
        counter.book.publish(seller.sealed, seller.offer, time.time())
        yield seller
    await engine.close()


@asynccontextmanager
async def unsteady(seller: Seller, mock_url: str) -> AsyncIterator[tuple[Seller, Seller]]:
    """An honest executor on a bad line: what is killed of it are its connections."""
    async with serving(seller, mock_url, "none"):
        yield seller, seller


@asynccontextmanager
async def listening(seller: Seller, handler: Handler) -> AsyncIterator[Seller]:
    """An executor whose calls `handler` answers."""
    service = Service(seller.address, NETWORK, settings(), handler, lambda _, __: None)
    seller.listener = await Listener.start("127.0.0.1", 0, certificate(seller.identity), service)
    seller.endpoint = Endpoint("127.0.0.1", seller.listener.port)
    try:
        yield seller
    finally:
        await seller.listener.close()


@asynccontextmanager
async def refusing(seller: Seller) -> AsyncIterator[Seller]:
    """Nobody listens where it says that it does."""
    async with _socket(lambda *_: None) as port:
        seller.endpoint = Endpoint("127.0.0.1", port)
    yield seller


@asynccontextmanager
async def mute(seller: Seller) -> AsyncIterator[Seller]:
    """Takes connections and never says a word."""
    async with _socket(_silence) as port:
        seller.endpoint = Endpoint("127.0.0.1", port)
        yield seller


@asynccontextmanager
async def lying(seller: Seller, *script: Any) -> AsyncIterator[Seller]:
    """Sends what stands in `script`, whatever it is asked; BEGINNING: the true one of the answer, HANG_UP: no goodbye."""

    async def handle(stream: Stream) -> None:
        if isinstance(stream.call, OfferCall):
            await stream.send(seller.sealed)
            await stream.finish()
            return
        body = b"".join([part async for part in _received(stream)])
        for part in script:
            if part is HANG_UP:
                stream.connection.wire.abort()
            elif isinstance(part, Done):
                await stream.finish(part)
            else:
                await stream.send(said(answer(body)[:20]) if part is BEGINNING else part)
                await asyncio.sleep(0.02)  # so that it arrives

    async with listening(seller, handle):
        yield seller


@asynccontextmanager
async def process(seller: Seller, mock_url: str) -> AsyncIterator[tuple[Seller, asyncio.subprocess.Process]]:
    """An executor in a process of its own, fit to be killed."""
    arguments = msgspec.json.encode([seller.identity.secret.hex(), seller.price, seller.features, mock_url]).decode()
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.faults.sellers",
        arguments,
        stdout=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        seller.endpoint = Endpoint("127.0.0.1", int(await child.stdout.readline()))
        yield seller, child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


def answer(body: bytes) -> str:
    """What the mock says to a request."""
    whole = msgspec.json.decode(body)
    plain = mock_answers.chat(msgspec.json.encode({**whole, "stream": False}), TOKENS, exaggerate=False).plain
    return str(msgspec.json.decode(plain)["choices"][0]["message"]["content"])


def said(text: str) -> bytes:
    """A chunk of an answer."""
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    return event(msgspec.json.encode({"id": "x", "created": 1, "model": MODEL, "choices": [choice]}))


async def _received(stream: Stream) -> AsyncIterator[bytes]:
    while (part := await stream.receive()) is not None:
        yield part


@asynccontextmanager
async def _socket(handler: Any) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1024):
        pass
    writer.close()


async def _child(secret: str, price: int, features: list[str], mock_url: str) -> None:
    """Serves until its standard input is closed, which happens when whoever started it is gone."""
    seller = Seller(price, tuple(features), identity=Identity(bytes.fromhex(secret)))
    async with serving(seller, mock_url, "none"):
        print(seller.endpoint.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_child(*msgspec.json.decode(sys.argv[1])))
