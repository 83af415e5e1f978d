"""Validators over real bridges: they take offers, tell each other, answer clients; and clients believe what proves itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from lloom.adapters.anchors import catalogues
from lloom.adapters.anchors.catalogues import PAGE, PAGES, Catalogues
from lloom.adapters.anchors.inquiry import Whereabouts, ask, told
from lloom.adapters.anchors.registrar import Registrar
from lloom.adapters.bridge import Connection, Link, Listener, Service, dial
from lloom.adapters.routing.pool import Pool
from lloom.adapters.validator.gossip import Gossip
from lloom.adapters.validator.service import CALLS_PER_SECOND
from lloom.adapters.validator.service import Service as Counter
from lloom.core import vouch
from lloom.core.catalogue import Catalogue
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import Identity, NodeId
from lloom.core.messages import (
    CatalogueCall,
    GossipCall,
    Listing,
    ModelCall,
    Models,
    ModelsPage,
    News,
    OffersPage,
    RegisterCall,
    Search,
    decoder,
    encode,
)
from lloom.core.offer import Endpoint, ModelOffer, Offer, seal
from lloom.core.trust import Trust
from lloom.core.vouch import Probe, Vouch
from tests.free_ports import free_port
from tests.integration.bridge_support import NETWORK, certificate, on_both_loops, settings, until
from tests.integration.test_prober import SETTINGS

HOME = Endpoint("127.0.0.1", 9001)


def pool_of(me: Identity) -> Pool:
    link = Link(me, NETWORK, settings())

    async def reach(endpoint: Endpoint, who: NodeId) -> Connection:
        return await dial(endpoint, who, link, lambda _, __: None)

    return Pool(reach, 32)


def offer(me: Identity, *models: str, seq: int = 1, seconds: float = 600) -> Offer:
    terms: dict[str, Any] = {"context": 4096, "max_output": 512, "parallel": 1, "encoding": "o200k_base"}
    offered = tuple(ModelOffer(id=name, backend="mock", **terms) for name in models or ("m",))
    expires = int(time.time() + seconds)
    return Offer(executor=me.address, seq=seq, expires=expires, endpoints=(HOME,), models=offered, software="test")


def sealed(me: Identity, *models: str, **changes: Any) -> bytes:
    return seal(offer(me, *models, **changes), me, NETWORK)


@dataclass
class Validator:
    """A validator's counter at a real port; `answer` replaces what it says."""

    me: Identity = field(default_factory=Identity.generate)
    fellows: list[Whereabouts] = field(default_factory=list)
    answer: bytes | None = None
    port: int = field(default_factory=free_port)

    async def start(self) -> None:
        self.catalogue = Catalogue(100, int(time.time() * 1000) + self.me.address[0])
        self.counter = Counter(
            self.catalogue, NETWORK, SETTINGS, lambda: {who for who, _ in self.fellows}, {ModelCall: self.chat}
        )
        service = Service(self.me.address, NETWORK, settings(), self.handle, lambda _, __: None)
        self.listener = await Listener.start("127.0.0.1", self.port, certificate(self.me), service)
        self.pool = pool_of(self.me)
        trusted = lambda: {self.me.address, *(who for who, _ in self.fellows)}  # noqa: E731
        self.gossip = Gossip(self.catalogue, self.pool, NETWORK, 0.01, lambda: self.fellows, trusted)

    async def handle(self, stream: Any) -> None:
        if self.answer is None:
            await self.counter.handle(stream)
            return
        await stream.send(self.answer)
        await stream.finish()

    async def chat(self, stream: Any) -> None:
        raise RetryElsewhere("handed on", code="others")

    async def stop(self) -> None:
        await self.pool.close()
        await self.listener.close()

    @property
    def where(self) -> Whereabouts:
        return self.me.address, Endpoint("127.0.0.1", self.port)

    def put(self, me: Identity, *models: str, **changes: Any) -> None:
        said = offer(me, *models, **changes)
        assert self.catalogue.put_offer(seal(said, me, NETWORK), said, time.time())

    def vouch(self, by: Identity, of: Identity, *, good: bool = True) -> None:
        now = int(time.time())
        said = Vouch(by.address, of.address, now, now + 600, (HOME,) if good else (), (Probe("m", good),))
        self.catalogue.put_vouch(vouch.seal(said, by, NETWORK), said, now)

    def knows(self, *people: Identity) -> bool:
        return {who.address for who in people} <= self.catalogue.entries.keys()


@asynccontextmanager
async def validators(count: int) -> AsyncIterator[list[Validator]]:
    """Validators that all name each other."""
    made = [Validator() for _ in range(count)]
    for each in made:
        await each.start()
    for each in made:
        each.fellows = [other.where for other in made if other is not each]
    try:
        yield made
    finally:
        for each in made:
            await each.stop()


@asynccontextmanager
async def caller(me: Identity | None = None) -> AsyncIterator[Pool]:
    pool = pool_of(me or Identity.generate())
    try:
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def working(*works: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# What a validator takes


@on_both_loops
async def test_an_offer_of_somebody_never_heard_of_registers_it() -> None:
    me = Identity.generate()
    async with validators(1) as (validator,), caller(me) as pool:
        await told(pool, validator.where, RegisterCall(), 5, sealed(me))
        page = await ask(pool, validator.where, CatalogueCall(Models()), decoder(ModelsPage), 5)
        assert [each.id for each in page.models] == ["m"]


@on_both_loops
async def test_nobody_registers_somebody_else_or_what_is_no_offer() -> None:
    me, other = Identity.generate(), Identity.generate()
    async with validators(1) as (validator,), caller(me) as pool:
        good = sealed(me)
        for bad in (sealed(other), b"", good[:-1], good[:-1] + bytes([good[-1] ^ 1]), sealed(me, seconds=-1)):
            with pytest.raises(RetryElsewhere):
                await told(pool, validator.where, RegisterCall(), 5, bad)
        with pytest.raises(RetryElsewhere, match="hold for"):
            await told(pool, validator.where, RegisterCall(), 5, sealed(me, seconds=1e6))
        assert not validator.catalogue.entries
        await told(pool, validator.where, RegisterCall(), 5, good)
        assert validator.knows(me)


@on_both_loops
async def test_an_offer_without_end_is_refused_and_others_are_served_meanwhile() -> None:
    me = Identity.generate()
    async with validators(1) as (validator,), caller(me) as pool:
        with pytest.raises(RetryElsewhere):
            await told(pool, validator.where, RegisterCall(), 5, bytes(300 * 1024))
        await told(pool, validator.where, RegisterCall(), 5, sealed(me))


@on_both_loops
async def test_news_is_for_fellows_and_calls_of_others_go_to_who_answers_them() -> None:
    async with validators(2) as (validator, fellow), caller() as pool:
        with pytest.raises(RetryElsewhere, match="fellow"):
            await told(pool, validator.where, GossipCall(), 5)
        await ask(fellow.pool, validator.where, GossipCall(), decoder(News), 5)
        call = ModelCall(b"", bytes(65), bytes(16), "m")
        with pytest.raises(RetryElsewhere, match="handed on"):
            await told(pool, validator.where, call, 5)


@on_both_loops
async def test_who_asks_too_much_is_refused_and_others_are_not() -> None:
    async with validators(1) as (validator,), caller() as greedy, caller() as other:
        questions = (told(greedy, validator.where, CatalogueCall(Models()), 5) for _ in range(3 * CALLS_PER_SECOND))
        answers = [(await asyncio.gather(question, return_exceptions=True))[0] for question in questions]
        refused = [answer for answer in answers if isinstance(answer, RetryElsewhere)]
        assert 0 < len(refused) < len(answers)
        assert {error.status for error in refused} == {429}
        await told(other, validator.where, CatalogueCall(Models()), 5)


@on_both_loops
async def test_fellows_are_answered_however_much_others_ask() -> None:
    async with validators(2) as (validator, fellow):
        for _ in range(3 * CALLS_PER_SECOND):
            await told(fellow.pool, validator.where, GossipCall(), 5)


@on_both_loops
async def test_many_identities_at_one_place_get_no_more_than_a_few_would() -> None:
    async with validators(1) as (validator,), AsyncExitStack() as stack:
        pools = [await stack.enter_async_context(caller()) for _ in range(5)]
        answers = [
            (await asyncio.gather(told(pool, validator.where, CatalogueCall(Models()), 5), return_exceptions=True))[0]
            for _ in range(CALLS_PER_SECOND)
            for pool in pools
        ]
        refused = [answer for answer in answers if isinstance(answer, RetryElsewhere)]
        assert refused
        assert len(refused) < len(answers)
        assert {error.status for error in refused} == {429}


# What validators tell each other


@on_both_loops
async def test_what_one_validator_knows_all_know_and_one_that_restarts_is_whole_again() -> None:
    people = [Identity.generate() for _ in range(5)]
    async with validators(3) as everybody:
        first, second, third = everybody
        for person in people:
            first.put(person)
        first.vouch(first.me, people[0])
        async with working(*(each.gossip.run() for each in (second, third))):
            await until(lambda: second.knows(*people) and third.knows(*people))
            await until(lambda: third.catalogue.vouched(people[0].address, time.time()))
        await first.stop()
        await first.start()
        assert not first.knows(people[0])
        async with working(first.gossip.run(), third.gossip.run()):
            await until(lambda: first.knows(*people) and first.catalogue.vouched(people[0].address, time.time()))
            latest = Identity.generate()
            first.put(latest)
            await until(lambda: third.knows(latest))


@on_both_loops
async def test_a_fellow_cannot_forge_offers_nor_spread_the_word_of_strangers() -> None:
    good, forged, stranger = Identity.generate(), Identity.generate(), Identity.generate()
    async with validators(2) as (validator, fellow):
        validator.put(good)
        said = offer(forged)
        fellow.catalogue.put_offer(seal(said, stranger, NETWORK), said, time.time())
        fellow.put(good, seq=2)
        fellow.vouch(stranger, good)
        fellow.vouch(fellow.me, good, good=False)
        assert not await validator.gossip.exchange(fellow.where)
        assert validator.knows(good)
        assert not validator.knows(forged)
        (only,) = validator.catalogue.vouches(good.address, time.time())
        assert only.validator == fellow.me.address


# What executors tell them


@on_both_loops
async def test_every_validator_is_told_of_every_change_and_of_the_end() -> None:
    me = Identity.generate()
    async with validators(2) as everybody, caller(me) as pool:
        registrar = Registrar(lambda: [each.where for each in everybody], pool)
        async with working(registrar.run()):
            registrar.say(sealed(me, "a"))
            await until(lambda: all(each.knows(me) for each in everybody))
            registrar.say(sealed(me, "b", seq=2))
            await until(lambda: all("b" in each.catalogue.by_model for each in everybody))
            empty = replace(offer(me, seq=3), models=(), endpoints=())
            await registrar.goodbye(seal(empty, me, NETWORK))
        assert not any(each.catalogue.offers(time.time()) for each in everybody)


@on_both_loops
async def test_a_validator_that_was_restarted_is_told_again() -> None:
    me = Identity.generate()
    async with validators(1) as (validator,), caller(me) as pool:
        registrar = Registrar(lambda: [validator.where], pool)
        async with working(registrar.run()):
            registrar.say(sealed(me))
            await until(lambda: validator.knows(me))
            await validator.stop()
            await validator.start()
            await until(lambda: validator.knows(me))


# What clients make of it


@dataclass
class Heard:
    """Catalogues as a client has them, and what it heard of vouches."""

    catalogues: Catalogues
    trust: Trust
    said: dict[NodeId, tuple[Vouch, ...]]

    async def people(self, model: str = "m") -> set[NodeId]:
        return {NodeId(each.offer.executor) for each in await self.catalogues.offers(model)}


def hears(pool: Pool, *whom: Validator) -> Heard:
    trust, said = Trust(600), {}
    anchors = [each.where for each in whom]
    made = Catalogues(lambda: anchors, pool, NETWORK, trust, lambda who, vouches: said.update({who: vouches}))
    made._rng = Random(1)
    return Heard(made, trust, said)


@on_both_loops
async def test_a_client_gets_verified_offers_and_the_words_of_its_own_validators() -> None:
    person, stranger = Identity.generate(), Identity.generate()
    async with validators(1) as (validator,), caller() as pool:
        validator.put(person)
        validator.put(Identity.generate(), "other")
        validator.vouch(validator.me, person)
        validator.vouch(stranger, person, good=False)
        heard = hears(pool, validator)
        assert await heard.people() == {person.address}
        assert len(await heard.people("*")) == 2
        (only,) = heard.said[person.address]
        assert only.validator == validator.me.address


@on_both_loops
async def test_a_validator_that_is_away_is_no_hindrance() -> None:
    person = Identity.generate()
    async with validators(3) as (one, two, three), caller() as pool:
        three.put(person)
        heard = hears(pool, one, two, three)
        await one.stop()
        await two.stop()
        assert await heard.people() == {person.address}
        await three.stop()
        with pytest.raises(RetryElsewhere, match="no validator"):
            await heard.people()
        for each in (one, two, three):
            await each.start()


def forgeries(person: Identity, other: Identity) -> dict[str, bytes]:
    """Answers that prove a validator a liar."""
    good = sealed(person)

    def page(executor: bytes, offer: bytes) -> bytes:
        return encode(OffersPage((Listing(executor, offer, ()),), b"", 1))

    return {
        "somebody else's signature": page(person.address, seal(offer(person), other, NETWORK)),
        "another executor": page(other.address, good),
        "a flipped byte": page(person.address, good[:40] + bytes([good[40] ^ 1]) + good[41:]),
        "not what was asked for": page(person.address, sealed(person, "other")),
        "no page": b"\xc1",
        "another page": encode(ModelsPage((), b"", 0)),
    }


@pytest.mark.parametrize("kind", forgeries(Identity(b"\1" * 32), Identity(b"\2" * 32)))
def test_a_validator_that_hands_out_forgeries_is_dropped_and_the_others_are_asked(kind: str) -> None:
    async def story() -> None:
        person = Identity.generate()
        async with asyncio.timeout(20), validators(2) as (liar, honest), caller() as pool:
            honest.put(person)
            liar.answer = forgeries(person, Identity.generate())[kind]
            heard = hears(pool, liar, honest)
            for _ in range(5):
                assert await heard.people() == {person.address}
            now = asyncio.get_running_loop().time()
            assert not heard.trust.trusted(liar.me.address, now)
            assert heard.trust.trusted(honest.me.address, now)
            assert heard.catalogues.dropped == 1

    asyncio.run(story())


@pytest.mark.parametrize("crowd", [PAGE * PAGES - 1, PAGE * PAGES])
def test_many_low_addresses_hide_nobody_from_a_client(crowd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        people = sorted((Identity.generate() for _ in range(crowd + 1)), key=lambda who: who.address)
        last = people[-1].address
        # By lot: here it falls just before the last one.
        monkeypatch.setattr(catalogues, "token_bytes", lambda _: people[-2].address)
        async with asyncio.timeout(30), validators(1) as (validator,), caller() as pool:
            validator.catalogue = Catalogue(1000, 1)
            validator.counter = Counter(validator.catalogue, NETWORK, replace(SETTINGS, page=PAGE), lambda: (), {})
            for person in people:
                validator.put(person)
            found = await hears(pool, validator).people()
            assert last in found
            assert len(found) == (crowd + 1 if crowd < PAGE * PAGES else PAGE + 1)

    asyncio.run(story())


@on_both_loops
async def test_an_answer_without_end_is_cut() -> None:
    async with validators(1) as (validator,), caller() as pool:
        validator.answer = bytes(2 * 1024 * 1024)
        with pytest.raises(PeerFault, match="without end"):
            await told(pool, validator.where, CatalogueCall(Search()), 10)
