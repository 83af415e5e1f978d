"""The client: the OpenAI-compatible gateway and what stands behind it. No byte of a request crosses Ray."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

from lloom import __version__
from lloom.actors.base import JOIN_SECONDS, Actor, patience
from lloom.actors.guests import invited
from lloom.actors.money import open_purses
from lloom.actors.naming import Naming
from lloom.actors.outbox import Outbox
from lloom.actors.recollecting import remembering
from lloom.actors.surroundings import surrounded
from lloom.adapters import figures
from lloom.adapters.anchors.catalogues import Catalogues
from lloom.adapters.bridge import Connection, Link, dial
from lloom.adapters.dht import Dht
from lloom.adapters.gateway import Gateway, Health, Server
from lloom.adapters.machine import home
from lloom.adapters.routing.attempt import Keeping
from lloom.adapters.routing.deliveries import Deliveries
from lloom.adapters.routing.directory import Directory
from lloom.adapters.routing.offers import Scope
from lloom.adapters.routing.pool import Pool
from lloom.adapters.routing.purses import Purses
from lloom.adapters.routing.router import Router
from lloom.adapters.routing.witness import Witness
from lloom.core import tokens
from lloom.core.eip712 import Domain
from lloom.core.identity import Identity, NodeId, checksum
from lloom.core.messages import SignedReceipt
from lloom.core.offer import Endpoint
from lloom.core.order import Client
from lloom.core.parcel import Given
from lloom.core.payment import audit, counting
from lloom.core.reputation.evidence import Kind
from lloom.core.reputation.inspection import KEY_BYTES, Inspection
from lloom.core.reputation.reputations import Reputations
from lloom.core.routing.outcomes import Outcomes
from lloom.core.routing.plans import Plans
from lloom.core.trust import Trust

ASK_SECONDS: Final = 10.0

Receipt = tuple[NodeId, SignedReceipt]


class ClientNode(Actor):
    """Answers the user's own programs, with the help of strangers."""

    async def run(self) -> None:
        settings = self.place.settings
        identity = self.place.identity()
        async with AsyncExitStack() as stack:
            receipts: Outbox[Receipt] = Outbox("receipts to keep", self._keep, settings.accounting)
            stack.push_async_callback(receipts.close)
            folder = home.folder(settings)
            dht = await Dht.start(identity, settings.network, settings.dht, client=True, folder=folder)
            stack.push_async_callback(dht.stop)
            naming = Naming(self.place)
            stack.push_async_callback(naming.close)
            reputations = remembering(self.place, stack)
            deliveries = Deliveries(
                lambda executor, signed: receipts.put((executor, signed)),
                lambda *need: self._purses.on_need(*need),
                naming.heard,
                partial(_judged, reputations),
            )
            guests, self._pockets = await invited(self.place, stack)
            router = self._router(identity, dht, deliveries, reputations, stack)
            gateway = Gateway(router, partial(self._health, dht), settings.gateway, guests)
            gateway.metrics.registry.register(figures.Figures(self._read))
            gateway.metrics.registry.register(router.figures())
            await stack.enter_async_context(surrounded(self.place, dht, (), self._read))
            server = Server.start(gateway, settings.gateway)
            stack.push_async_callback(server.close)
            url = f"http://{reachable(settings.gateway.host)}:{server.port}"
            note = home.GatewayNote(url=url, node=checksum(self.place.node), pid=os.getpid(), key=guests.own)
            stack.enter_context(home.announced(settings, note))
            await asyncio.to_thread(tokens.count, "", counting.USUAL)  # reading its table would be noticed by answers
            await patience(dht.ready, JOIN_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(JOIN_SECONDS):
                    await self._purses.looked()
            self.up(f"answers at {url}/v1" + (f"; but {dht.status.problem}" if dht.status.problem else ""))
            await self.stopping.wait()

    def _router(
        self, identity: Identity, dht: Dht, deliveries: Deliveries, reputations: Reputations, stack: AsyncExitStack
    ) -> Router:
        """Everything between the gateway and the executors."""
        settings, routing = self.place.settings, self.place.settings.routing
        link = Link(
            identity,
            settings.network.name,
            settings.bridge,
            relays=lambda who, where: pool.connection(who, where),
            fits=dht.fits,
        )

        async def reach(endpoint: Endpoint, executor: NodeId) -> Connection:
            return await dial(endpoint, executor, link, deliveries.on_control)

        pool = Pool(reach, settings.bridge.connections)
        stack.push_async_callback(pool.close)
        outcomes = Outcomes(routing.memory_seconds, routing.cooldown_seconds, reputations)
        self._purses = open_purses(self.place, identity, outcomes, deliveries, stack, self._pockets)
        trust = Trust(routing.memory_seconds)
        witness = Witness(trust, reputations, lambda: dht.anchors)
        catalogues = Catalogues(lambda: dht.anchors, pool, settings.network.name, trust, witness.told)
        scope = Scope(settings.network.name, settings.bridge.connect_seconds)
        directory = Directory(dht, catalogues, pool, scope, routing)
        stack.push_async_callback(directory.close)
        router = Router(
            Client(identity, Domain()),
            Plans(routing, outcomes, self._purses.misfit),
            directory,
            pool,
            Keeping(
                routing,
                outcomes,
                deliveries,
                witness.experienced,
                lambda report: audit.problem(report, settings.accounting),
                Inspection(reputations, secrets.token_bytes(KEY_BYTES)),
            ),
            self._purses,
        )
        stack.push_async_callback(router.close)
        self._read = partial(_figures, dht, pool, catalogues, self._purses)
        return router

    def _health(self, dht: Dht) -> Health:
        return Health(
            status="ok" if dht.ready.is_set() else "starting",
            node=checksum(self.place.node),
            role=self.place.settings.role,
            version=__version__,
            network=self.place.settings.network.name,
            peers=dht.peers,
            problem=dht.status.problem,
        )

    async def _keep(self, receipts: list[Receipt]) -> None:
        await self.place.ask("accounting", "keep", Given(receipts), seconds=ASK_SECONDS)


def _figures(dht: Dht, pool: Pool, catalogues: Catalogues, purses: Purses) -> dict[str, float]:
    """What this client shows to Prometheus beside its gateway's own numbers."""
    return {
        **figures.dht(dht.status),
        "bridge_dialled": pool.connections,
        "validators_dropped": catalogues.dropped,
        **purses.figures(),
    }


def _judged(reputations: Reputations, executor: NodeId, model: str, right: bool) -> None:
    """A receipt that nobody pays for is as it should be, or not."""
    reputations.note(executor, model, Kind.RECEIPT, asyncio.get_running_loop().time(), right=right)


def reachable(host: str) -> str:
    """An address under which this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
