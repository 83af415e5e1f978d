"""A validator looks for executors that the DHT knows and nobody registered; it asks themselves, over real bridges."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from lloom.adapters.bridge import Listener, Service, Stream
from lloom.adapters.dht.node import Contact
from lloom.adapters.routing.pool import Pool
from lloom.adapters.validator import sweep
from lloom.adapters.validator.sweep import Sweep
from lloom.core.catalogue import Catalogue
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import Identity, NodeId
from lloom.core.messages import OfferCall
from lloom.core.offer import Endpoint
from lloom.core.records import ALL
from tests.integration.bridge_support import NETWORK, certificate, on_both_loops, settings
from tests.integration.test_validator import caller, sealed


@dataclass
class Records:
    """What stands in the DHT."""

    contacts: dict[NodeId, Contact | None] = field(default_factory=dict)
    peers: int = 1
    wanted: list[NodeId] = field(default_factory=list)
    malformed: NodeId | None = None

    async def executors(self, model: str) -> Sequence[NodeId]:
        assert model == ALL
        return list(self.contacts)

    async def contact(self, executor: NodeId) -> Contact | None:
        self.wanted.append(executor)
        if executor == self.malformed:
            raise PeerFault("a malformed record")
        return self.contacts[executor]

    def name(self, who: Identity, *ports: int) -> None:
        self.contacts[who.address] = Contact(tuple(Endpoint("127.0.0.1", port) for port in ports), bytes(32), 1)


@asynccontextmanager
async def handing_out(who: Identity, said: bytes) -> AsyncIterator[int]:
    """The port of an executor's bridge that hands out `said`."""

    async def answer(stream: Stream) -> None:
        if not isinstance(stream.call, OfferCall):
            raise RetryElsewhere("only offers are to be had here")
        await stream.send(said)
        await stream.finish()

    service = Service(who.address, NETWORK, settings(), answer, lambda _, __: None)
    listener = await Listener.start("127.0.0.1", 0, certificate(who), service)
    try:
        yield listener.port
    finally:
        await listener.close()


def sweeping(records: Records, pool: Pool) -> tuple[Catalogue, Sweep]:
    catalogue = Catalogue(100, 1)
    return catalogue, Sweep(catalogue, records, pool, NETWORK, Random(1))


@on_both_loops
async def test_who_stands_in_the_dht_alone_gets_into_the_catalogue_and_is_not_asked_again() -> None:
    me, records = Identity.generate(), Records()
    async with handing_out(me, sealed(me)) as port, caller() as pool:
        records.name(me, 1, port)  # nobody listens at the first
        catalogue, work = sweeping(records, pool)
        await work.look()
        assert [offer.executor for offer in catalogue.offers(time.time())] == [me.address]
        await work.look()
        assert records.wanted == [me.address]


@on_both_loops
async def test_what_others_signed_or_nobody_hands_out_is_left_and_hinders_nobody() -> None:
    me, liar, silent, gone, mangled = (Identity.generate() for _ in range(5))
    records = Records(malformed=mangled.address)
    async with (
        handing_out(me, sealed(me)) as port,
        handing_out(liar, sealed(me)) as other,
        handing_out(silent, b"") as empty,
        caller() as pool,
    ):
        records.name(liar, other, port)  # the second is somebody else's
        records.name(silent, empty)
        records.name(me, port)
        records.contacts[gone.address] = records.contacts[mangled.address] = None
        catalogue, work = sweeping(records, pool)
        await work.look()
        assert catalogue.entries.keys() == {me.address}


@on_both_loops
async def test_free_records_cost_a_bounded_number_of_dials() -> None:
    records = Records({Identity.generate().address: None for _ in range(sweep.ASKED + 20)})
    async with caller() as pool:
        _, work = sweeping(records, pool)
        await work.look()
        assert len(records.wanted) == sweep.ASKED
        await work.look()
        assert set(records.wanted[sweep.ASKED :]) - set(records.wanted[: sweep.ASKED]), "the lot falls on others, too"
