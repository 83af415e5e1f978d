"""A Worker: the bridge's listener with the engines behind it. It holds no key but the short-lived one of its TLS."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from random import Random
from typing import Any, Final

from loguru import logger
from msgspec.structs import replace

from lloom.actors.base import Actor, patience
from lloom.actors.desk import ASK_SECONDS, Bill, ChainDesk, send_receipts
from lloom.actors.listening import keep_certified, listen, silence
from lloom.actors.naming import Naming
from lloom.actors.outbox import Outbox
from lloom.actors.place import FellowAway, Place
from lloom.adapters.anchors.reservation import Reservations
from lloom.adapters.bridge import Connection, Link, Listener, dial
from lloom.adapters.llm import Engine, engines
from lloom.adapters.llm.menu import Menu
from lloom.adapters.serving import Serving
from lloom.adapters.serving.audit import Audit
from lloom.adapters.serving.tills import Tills
from lloom.core import tokens
from lloom.core.billing.lane import Lane
from lloom.core.bridge import hello
from lloom.core.bridge.certificate import Endorsement
from lloom.core.eip712 import Domain
from lloom.core.identity import NodeId
from lloom.core.messages import Hello, Limits
from lloom.core.offer import Endpoint, ModelOffer, unseal
from lloom.core.parcel import Drafts
from lloom.core.payment.domain import active
from lloom.core.payment.receivable import Ask, Holder

RETRY_SECONDS: Final = 0.25
RELAYS_SECONDS: Final = 5.0
"""How soon a worker hears that it is to be relayed, or not any more."""


class Worker(Actor):
    """Serves the engines at `port`; others reach it at `endpoint`."""

    def __init__(self, place: Place, port: int, endpoint: Endpoint) -> None:
        super().__init__(place)
        self._port = port
        self._endpoint = endpoint
        self._desks: dict[str, ChainDesk] = {}
        self._enlisting = asyncio.Lock()

    async def run(self) -> None:
        settings = self.place.settings
        async with AsyncExitStack() as stack:
            menu = await self._start_engines(stack)
            naming = Naming(self.place)
            stack.push_async_callback(naming.close)
            bills: Outbox[Bill] = Outbox("receipts to sign", self._issue, settings.accounting)
            stack.push_async_callback(bills.close)
            tills = self._open_tills(stack)
            serving = Serving(settings.executor, settings.bridge, Domain(), menu, lambda *bill: bills.put(bill), tills)
            serving.audit = Audit(settings.accounting)
            stack.push_async_callback(serving.close)
            listener = await listen(self.place, self._port, self._endorse, serving.handle, tills.on_control)
            stack.push_async_callback(listener.close)
            lifetime = settings.bridge.certificate_seconds
            reservations = self._reservations(listener)
            await self.until_stopped(
                self._follow_offer(serving),
                menu.run(),
                self._follow_menu(menu, naming),
                keep_certified(listener, lifetime, self._endorse),
                reservations.run(),
                self._keep_relayed(reservations),
                tills.run(),
                self._enlist_desks(),
            )

    async def recall(self, chain: str, holder: Holder, lanes: list[Lane]) -> list[Ask]:
        """What this Worker gives back of lanes that another one needs; nothing, if `holder` is an earlier life of it."""
        desk = self._desks.get(chain)
        return desk.till.recall(lanes) if desk and desk.holder == holder else []

    def _open_tills(self, stack: AsyncExitStack) -> Tills:
        """One for each chain that money is on, for this life of the Worker."""
        holder = Holder(self.place.name, os.urandom(16))
        self._desks = {chain: ChainDesk(self.place, chain, holder) for chain in active(self.place.settings)}
        for desk in self._desks.values():
            stack.push_async_callback(desk.close)
        return Tills([desk.till for desk in self._desks.values()])

    async def _enlist_desks(self) -> None:
        await asyncio.gather(*(desk.run() for desk in self._desks.values()))
        await self.stopping.wait()

    def _reservations(self, listener: Listener) -> Reservations:
        """What relays pass on is a stranger's connection like any other."""
        settings = self.place.settings
        link = Link(self._greet, settings.network.name, settings.bridge)

        async def to_relay(endpoint: Endpoint, validator: NodeId) -> Connection:
            return await dial(endpoint, validator, link, silence, listener.take)

        number = self._port - settings.network.port  # workers' ports follow one another
        return Reservations(to_relay, number, settings.relay.validators, Random())  # noqa: S311

    async def _keep_relayed(self, reservations: Reservations) -> None:
        """Has relays when the executor wants them, and tells it which."""
        while True:
            reservations.changed.clear()
            held, port = reservations.held, self._endpoint.port
            reservations.use(await self._patiently("relays", self.place.name, held, port))
            await patience(reservations.changed, RELAYS_SECONDS)

    async def _greet(self, audience: hello.Audience, limits: Limits) -> Hello:
        said: Hello = await self._patiently("greet", audience, limits)
        return said

    async def _start_engines(self, stack: AsyncExitStack) -> Menu:
        """Every engine, and what those that are there serve; one that is not there yet holds up nobody."""
        settings = self.place.settings
        wanted = {getattr(backend, "key_env", None) for backend in settings.llm.values()}
        os.environ.update({name: key for name, key in self.place.provider_keys().items() if name in wanted})
        found = engines(settings.llm, settings.executor.discovered_models)
        for engine in found:
            stack.push_async_callback(engine.close)
            await engine.start()
        menu = Menu(found, settings.executor.discovery_seconds)
        await menu.look()
        return menu

    async def _follow_menu(self, menu: Menu, naming: Naming) -> None:
        """Tells the executor whenever something else is served."""
        while True:
            await menu.changed.wait()
            menu.changed.clear()
            for model in menu:
                naming.heard(model)
            await self._enlist(menu)

    async def _enlist(self, menu: Mapping[str, tuple[Engine, ModelOffer]]) -> None:
        async with self._enlisting:  # the executor must hear the newest last
            models = tuple(self._offered(offer) for _, offer in menu.values())
            for encoding in {each.encoding for each in models}:
                # Once loaded it stays. Reading a table holds the interpreter's lock for long enough to be noticed by answers.
                await asyncio.to_thread(tokens.count, "", encoding)
            await self._patiently("enlist", self.place.name, self._endpoint, models)
        if not models:
            self.up("serves nothing yet; it will as soon as a backend is there")

    def _offered(self, offer: ModelOffer) -> ModelOffer:
        """As told to others: no client may have more at once than this Worker takes from one."""
        most = self.place.settings.executor.requests_per_client
        return replace(offer, parallel=min(offer.parallel, most))

    async def _endorse(self, public_hash: bytes) -> Endorsement:
        endorsement: Endorsement = await self._patiently("endorse", public_hash)
        return endorsement

    async def _follow_offer(self, serving: Serving) -> None:
        """Has the executor's newest offer at hand, and shows the executor that this worker lives."""
        seen = 0
        while True:
            answer = await self._patiently("offer", self.place.name, seen)
            if answer is None:
                await self._enlist(serving.engines)
                continue
            seen, sealed = answer
            if sealed:
                now = time.time()
                offer = unseal(sealed, self.place.node, self.place.settings.network.name, now)
                serving.book.publish(sealed, offer, now)
                self.up(f"serves {', '.join(sorted(serving.engines))} at {self._endpoint} (TCP)")

    async def _patiently(self, method: str, *arguments: Any) -> Any:
        """Asks the executor until it answers: it comes back within seconds if it was killed."""
        while True:
            try:
                return await self.place.ask("executor", method, *arguments, seconds=ASK_SECONDS)
            except FellowAway as away:
                logger.debug("{}; asking again", away)
                await asyncio.sleep(RETRY_SECONDS)

    async def _issue(self, bills: list[Bill]) -> None:
        """Has receipts numbered, signed and journaled, then sends each to whom it is for.

        The same draft gives the same receipt, so asking again after a crash of the ledger is safe.
        """
        drafts = Drafts(draft for _, draft in bills)
        send_receipts(bills, await self.place.ask("accounting", "issue", drafts, seconds=ASK_SECONDS))
