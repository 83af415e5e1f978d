"""A Worker: the bridge's listener with the engines behind it. It holds no key but the short-lived one of its TLS."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import Any, Final

from loguru import logger

from lloom.actors.base import Actor
from lloom.actors.place import FellowAway, Place
from lloom.adapters.bridge import Certificate, Connection, Link, Listener
from lloom.adapters.llm import Engine, engines
from lloom.adapters.serving import Serving
from lloom.core import certificate
from lloom.core.eip712 import Domain
from lloom.core.messages import Receipts, SignedReceipt
from lloom.core.offer import Endpoint, ModelOffer, unseal
from lloom.core.receipt import Draft

ASK_SECONDS: Final = 10.0
"""For calls to fellow actors; they answer within milliseconds unless they are being restarted (1.4 to 2.7 s)."""
RETRY_SECONDS: Final = 0.25
RENEW_SHARE: Final = 0.5
"""A certificate is renewed at this share of its life."""


class Worker(Actor):
    """Serves the engines at `port`; others reach it at `endpoint`."""

    def __init__(self, place: Place, port: int, endpoint: Endpoint) -> None:
        super().__init__(place)
        self._port = port
        self._endpoint = endpoint
        self._models: dict[str, tuple[Engine, ModelOffer]] = {}
        self._drafts: asyncio.Queue[tuple[Connection, Draft]] = asyncio.Queue(place.settings.accounting.backlog)

    async def run(self) -> None:
        settings = self.place.settings
        async with AsyncExitStack() as stack:
            self._models = await self._start_engines(stack)
            serving = Serving(settings.executor, settings.bridge, Domain(), self._models, self._bill)
            billing = asyncio.create_task(self._issue(), name="receipts")
            stack.push_async_callback(self._settle, billing)
            listener = await self._listen(serving)
            stack.push_async_callback(listener.close)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._follow_offer(serving)), group.create_task(self._renew(listener))]
                await self.stopping.wait()
                for task in tasks:
                    task.cancel()

    async def _start_engines(self, stack: AsyncExitStack) -> dict[str, tuple[Engine, ModelOffer]]:
        """Every engine by the models it serves."""
        found: dict[str, tuple[Engine, ModelOffer]] = {}
        for engine in engines(self.place.settings.llm):
            stack.push_async_callback(engine.close)
            for offer in await engine.start():
                found[offer.id] = (engine, offer)
        return found

    async def _listen(self, serving: Serving) -> Listener:
        place = self.place
        link = Link(place.node, place.settings.network.name, place.settings.bridge)
        certificate = await self._certificate()
        return await Listener.start(place.settings.network.host, self._port, certificate, link, serving.handle)

    async def _certificate(self) -> Certificate:
        """A new TLS key with the node's word for it."""
        key = certificate.new_key()
        endorsement = await self._patiently("endorse", certificate.public_hash(key))
        return Certificate(key, certificate.issue(key, endorsement))

    async def _renew(self, listener: Listener) -> None:
        """A new certificate well before the old one expires."""
        while True:
            await asyncio.sleep(RENEW_SHARE * self.place.settings.bridge.certificate_seconds)
            listener.renew(await self._certificate())

    async def _follow_offer(self, serving: Serving) -> None:
        """Has the executor's newest offer at hand, and shows the executor that this worker lives."""
        seen = 0
        while True:
            answer = await self._patiently("offer", self.place.name, seen)
            if answer is None:
                models = tuple(offer for _, offer in self._models.values())
                await self._patiently("enlist", self.place.name, self._endpoint, models)
                continue
            number, sealed = answer
            if number > seen:
                now = time.time()
                serving.book.publish(sealed, unseal(sealed, self.place.node, self.place.settings.network.name, now), now)
                seen = number
                self.up(f"serves {', '.join(sorted(self._models))} at {self._endpoint} (TCP)")

    async def _patiently(self, method: str, *arguments: Any) -> Any:
        """Asks the executor until it answers: it comes back within seconds if it was killed."""
        while True:
            try:
                return await self.place.ask("executor", method, *arguments, seconds=ASK_SECONDS)
            except FellowAway as away:
                logger.debug("{}; asking again", away)
                await asyncio.sleep(RETRY_SECONDS)

    def _bill(self, connection: Connection, draft: Draft) -> None:
        """Queues a receipt; the request is over for its client, so this never waits."""
        try:
            self._drafts.put_nowait((connection, draft))
        except asyncio.QueueFull:
            logger.error("the accounting journal is away for too long: a receipt was dropped")

    async def _issue(self) -> None:
        """Has receipts numbered, signed and journaled in batches, then sends each to whom it is for."""
        while True:
            batch = [await self._drafts.get()]
            while len(batch) < self.place.settings.accounting.batch and not self._drafts.empty():
                batch.append(self._drafts.get_nowait())
            signed = await self._signed([draft for _, draft in batch])
            by_connection: dict[Connection, list[SignedReceipt]] = defaultdict(list)
            for (connection, _), receipt in zip(batch, signed, strict=True):
                by_connection[connection].append(receipt)
            for connection, receipts in by_connection.items():
                connection.send_control(Receipts(receipts))
            for _ in batch:
                self._drafts.task_done()

    async def _signed(self, drafts: list[Draft]) -> list[SignedReceipt]:
        """The same drafts give the same receipts, so asking again after a crash of the ledger is safe."""
        while True:
            try:
                return list(await self.place.ask("accounting", "issue", drafts, seconds=ASK_SECONDS))
            except FellowAway as away:
                logger.warning("{}; its receipts wait", away)
                await asyncio.sleep(RETRY_SECONDS)

    async def _settle(self, billing: asyncio.Task[None]) -> None:
        """Lets the last receipts reach the journal."""
        try:
            await asyncio.wait_for(self._drafts.join(), ASK_SECONDS)
        except TimeoutError:
            logger.error("{} receipts did not reach the journal", self._drafts.qsize())
        billing.cancel()
        await asyncio.gather(billing, return_exceptions=True)
