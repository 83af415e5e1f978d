"""The validator: where nodes enter the network, where their records and offers are kept and looked at. It answers no prompt."""

from __future__ import annotations

import os
import time
from contextlib import AsyncExitStack
from functools import partial
from random import Random

from lloom.actors.base import Actor
from lloom.actors.listening import keep_certified, listen, silence
from lloom.actors.money import open_purses
from lloom.actors.surroundings import TCP, UDP, surrounded
from lloom.adapters import figures
from lloom.adapters.bridge import Connection, Link, Listener, OnControl, dial
from lloom.adapters.dht import Dht
from lloom.adapters.machine import home
from lloom.adapters.routing.attempt import Keeping
from lloom.adapters.routing.deliveries import Deliveries
from lloom.adapters.routing.pool import Pool
from lloom.adapters.validator.dialback import DialBack
from lloom.adapters.validator.gossip import Gossip
from lloom.adapters.validator.prober import Prober
from lloom.adapters.validator.service import Service
from lloom.adapters.validator.shopper import Shopper, Shoppers
from lloom.adapters.validator.sweep import Sweep
from lloom.adapters.validator.switchboard import Switchboard
from lloom.core import queries
from lloom.core.bridge import certificate
from lloom.core.bridge.certificate import Endorsement
from lloom.core.catalogue import Catalogue
from lloom.core.eip712 import Domain
from lloom.core.identity import Identity, NodeId, checksum
from lloom.core.messages import ReachCall, RelayCall, ReserveCall, SignedReceipt
from lloom.core.offer import Endpoint
from lloom.core.order import Client
from lloom.core.payment.domain import paying
from lloom.core.routing.outcomes import Outcomes
from lloom.core.visitors import payer


class ValidatorNode(Actor):
    """Bootstrap and storage for the DHT; catalogue, gossip and probes."""

    async def run(self) -> None:
        settings = self.place.settings
        network = settings.network
        identity = self.place.identity()
        # Versions count anew at every start; fellows tell by the epoch.
        catalogue = Catalogue(settings.validator.executors, epoch=int(time.time() * 1000))
        async with AsyncExitStack() as stack:
            dht = await Dht.start(identity, network, settings.dht, client=False, folder=home.folder(settings))
            stack.push_async_callback(dht.stop)
            dht.prefer(lambda publisher: catalogue.vouched(publisher, time.time()))
            pool = self._pool(identity, dht, silence)
            stack.push_async_callback(pool.close)
            shoppers = Shoppers(identity, partial(self._shopper, dht), settings.validator, self._payer(dht, stack))
            stack.push_async_callback(shoppers.close)
            listener = await self._listen(identity, dht, catalogue)
            stack.push_async_callback(listener.close)
            gossip = Gossip(
                catalogue,
                pool,
                network.name,
                settings.validator.gossip_seconds,
                lambda: dht.anchors,
                lambda: {identity.address, *(validator for validator, _ in dht.anchors)},
            )
            prober = Prober(catalogue, shoppers, network.name, Random(os.urandom(32)))  # noqa: S311 - but nobody knows the seed
            ports = ((UDP, dht.port), (TCP, dht.port))
            read = partial(self._figures, dht, catalogue, prober, (pool, shoppers), listener)
            await stack.enter_async_context(surrounded(self.place, dht, ports, read))
            sweep = Sweep(catalogue, dht, pool, network.name, Random())  # noqa: S311 - it spreads load, it hides nothing
            where = f"{network.advertise or network.host}:{dht.port}"
            self.up(f"lets nodes in at {checksum(identity.address)}@{where} (UDP and TCP)")
            certified = keep_certified(listener, settings.bridge.certificate_seconds, partial(self._endorse, identity))
            await self.until_stopped(certified, gossip.run(), sweep.run(), prober.run())

    async def _listen(self, identity: Identity, dht: Dht, catalogue: Catalogue) -> Listener:
        settings = self.place.settings
        board = self._board = Switchboard(settings.relay, time.monotonic)
        back = DialBack(Link(identity, settings.network.name, settings.bridge))
        service = Service(
            catalogue,
            settings.network.name,
            settings.validator,
            lambda: {validator for validator, _ in dht.anchors},
            {ReserveCall: board.reserve, RelayCall: board.relay, ReachCall: back.answer},
        )
        return await listen(self.place, dht.port, partial(self._endorse, identity), service.handle, silence)

    def _figures(
        self, dht: Dht, catalogue: Catalogue, prober: Prober, dialling: tuple[Pool, Shoppers], listener: Listener
    ) -> dict[str, float]:
        """What this validator shows to Prometheus."""
        numbers = queries.numbers(catalogue, time.time(), 1 + len(dht.anchors))
        return {
            **figures.dht(dht.status),
            "bridge_dialled": sum(each.connections for each in dialling),
            "bridge_accepted": len(listener.connections),
            "catalogue_executors": numbers.executors,
            "catalogue_models": numbers.models,
            "catalogue_workers": numbers.workers,
            "catalogue_vouched": numbers.vouched,
            "catalogue_relayed": numbers.relayed,
            "executors_suspected": prober.suspected,
            "relay_workers": self._board.reserved,
            "relay_connections": self._board.streams,
        }

    def _pool(self, identity: Identity, dht: Dht, on_control: OnControl) -> Pool:
        """Connections to fellows and executors, in the name of `identity`."""
        settings = self.place.settings
        link = Link(
            identity,
            settings.network.name,
            settings.bridge,
            relays=lambda who, where: pool.connection(who, where),
            fits=dht.fits,
        )

        async def reach(endpoint: Endpoint, executor: NodeId) -> Connection:
            return await dial(endpoint, executor, link, on_control)

        pool = Pool(reach, settings.bridge.connections)
        return pool

    def _shopper(self, dht: Dht, identity: Identity) -> Shopper:
        """Who asks for what nobody pays."""
        deliveries = Deliveries(_forget)
        return Shopper(
            Client(identity, Domain()), self._pool(identity, dht, deliveries.on_control), self._keeping(deliveries)
        )

    def _payer(self, dht: Dht, stack: AsyncExitStack) -> Shopper | None:
        """Who asks for what costs money; None if this validator spends none."""
        settings = self.place.settings
        if not paying(settings):
            return None
        identity = payer(self.place.identity(), settings)
        deliveries = Deliveries(_forget, lambda *need: purses.on_need(*need))
        pool = self._pool(identity, dht, deliveries.on_control)
        stack.push_async_callback(pool.close)
        keeping = self._keeping(deliveries)
        purses = open_purses(self.place, identity, keeping.outcomes, deliveries, stack)
        return Shopper(Client(identity, Domain()), pool, keeping, purses)

    def _keeping(self, deliveries: Deliveries) -> Keeping:
        routing = self.place.settings.routing
        return Keeping(routing, Outcomes(routing.memory_seconds, routing.cooldown_seconds), deliveries)

    async def _endorse(self, identity: Identity, public_hash: bytes) -> Endorsement:
        lifetime = self.place.settings.bridge.certificate_seconds
        return certificate.endorse(identity, self.place.settings.network.name, public_hash, time.time(), lifetime)


def _forget(_executor: NodeId, _receipt: SignedReceipt) -> None:
    """Receipts of what nobody pays are checked and not kept: nothing follows from them."""
