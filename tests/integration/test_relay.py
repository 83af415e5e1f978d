"""Executors that nobody can dial, reached through validators: real bridges within bridges on loopback, on both event loops."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from lloom.adapters.anchors.inquiry import ask as inquire
from lloom.adapters.anchors.reach import reach
from lloom.adapters.anchors.reservation import Reservations
from lloom.adapters.bridge import Connection, Link, Listener, Service, Stream, dial
from lloom.adapters.dht import addresses
from lloom.adapters.routing.pool import Pool
from lloom.adapters.validator import switchboard
from lloom.adapters.validator.dialback import DialBack
from lloom.adapters.validator.switchboard import BEGUN_PER_SECOND, Switchboard
from lloom.core.bridge import hello
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import Identity, NodeId
from lloom.core.messages import (
    Hello,
    Limits,
    OfferCall,
    ReachCall,
    Reached,
    RelayCall,
    RelayedCall,
    ReserveCall,
    decoder,
    encode,
)
from lloom.core.offer import Endpoint
from lloom.core.settings import RelaySettings
from tests.free_ports import free_port
from tests.integration.bridge_support import NETWORK, certificate, echo, on_both_loops, read_all, settings, until

CALL = OfferCall()
SECRET = b"the prompt that nobody else may read"


def relay_settings(**changes: Any) -> RelaySettings:
    values: dict[str, Any] = {
        "validators": 2,
        "check_seconds": 300,
        "executors": 64,
        "streams": 256,
        "streams_per_peer": 64,
        "bytes_per_second": 1 << 30,
    }
    return RelaySettings(**{**values, **changes})


def anywhere(_: object) -> bool:
    """Every address makes sense."""
    return True


class Validator:
    """A validator that relays, and what passes through it."""

    def __init__(self, board: Switchboard, link: Link, identity: Identity) -> None:
        self.board = board
        self.identity = identity
        self.listener: Listener
        self._back = DialBack(link)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.listener.port)

    @property
    def whereabouts(self) -> tuple[NodeId, Endpoint]:
        return self.identity.address, self.endpoint

    def relays(self, executor: NodeId, worker: int = 0) -> Endpoint:
        return Endpoint("127.0.0.1", self.listener.port, self.identity.address, worker)

    async def handle(self, stream: Stream) -> None:
        match stream.call:
            case ReserveCall():
                await self.board.reserve(stream)
            case RelayCall():
                await self.board.relay(stream)
            case ReachCall():
                await self._back.answer(stream)

    def cut(self) -> None:
        """It dies without a word."""
        for connection in tuple(self.listener.connections):
            connection.wire.abort()


@asynccontextmanager
async def validator(
    board: type[Switchboard] = Switchboard, drain_seconds: float = 5, **changes: Any
) -> AsyncIterator[Validator]:
    identity = Identity.generate()
    loop = asyncio.get_running_loop()
    found = Validator(board(relay_settings(**changes), loop.time), Link(identity, NETWORK, settings()), identity)
    own = settings(drain_seconds=drain_seconds)
    service = Service(identity.address, NETWORK, own, found.handle, lambda *_: None)
    found.listener = await Listener.start("127.0.0.1", 0, certificate(identity), service)
    try:
        yield found
    finally:
        found.cut()
        await found.listener.close()


class Hidden:
    """An executor's Worker with reservations at validators; its key is elsewhere, as a Worker's is."""

    def __init__(self, listener: Listener, identity: Identity, reservations: Reservations) -> None:
        self.listener = listener
        self.identity = identity
        self.reservations = reservations

    @property
    def address(self) -> NodeId:
        return self.identity.address


@asynccontextmanager
async def hidden(*validators: Validator, handler: Any = echo, wanted: int = 2, **changes: Any) -> AsyncIterator[Hidden]:
    """It holds its reservations already. `changes`: to the settings of its bridge."""
    identity = Identity.generate()

    async def greet(audience: hello.Audience, limits: Limits) -> Hello:
        await asyncio.sleep(0)
        return hello.greet(identity, audience, limits, time.time())

    service = Service(identity.address, NETWORK, settings(**changes), handler, lambda *_: None)
    listener = await Listener.start("127.0.0.1", 0, certificate(identity), service)
    link = Link(greet, NETWORK, settings())

    async def to_relay(endpoint: Endpoint, who: NodeId) -> Connection:
        return await dial(endpoint, who, link, lambda *_: None, listener.take)

    reservations = Reservations(to_relay, 0, wanted, random.Random(1))
    reservations.use([each.whereabouts for each in validators])
    keeping = asyncio.create_task(reservations.run())
    try:
        await until(lambda: len(reservations.held) == min(wanted, len(validators)))
        yield Hidden(listener, identity, reservations)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await listener.close()


@asynccontextmanager
async def client(**changes: Any) -> AsyncIterator[Pool]:
    """A client's pool, whose relayed connections share one to each validator."""
    link = Link(Identity.generate(), NETWORK, settings(**changes), relays=lambda who, at: pool.connection(who, at))

    async def reach_(endpoint: Endpoint, executor: NodeId) -> Connection:
        return await dial(endpoint, executor, link, lambda *_: None)

    pool = Pool(reach_, 64)
    try:
        yield pool
    finally:
        await pool.close()


async def ask(connection: Connection, question: bytes) -> bytes:
    """The answer to one call."""
    stream = await connection.open(CALL)

    async def send() -> None:
        await stream.send(question)
        await stream.finish()

    _, answer = await asyncio.gather(send(), read_all(stream))
    return answer


@on_both_loops
async def test_a_request_and_its_answer_go_through_a_relay_whole() -> None:
    question = os.urandom(3_000_000)
    async with validator() as v, hidden(v) as executor, client() as pool:
        connection = await pool.connection(executor.address, v.relays(executor.address))
        assert await ask(connection, question) == question
        assert connection.peer == executor.address


@on_both_loops
async def test_relayed_connections_share_one_to_the_validator() -> None:
    async with validator() as v, hidden(v) as one, hidden(v) as other, client() as pool:
        for executor in (one, other):
            await pool.connection(executor.address, v.relays(executor.address))
        assert pool.connections == 3
        assert v.board.streams == 2


@on_both_loops
async def test_a_relay_sees_neither_the_prompt_nor_the_answer() -> None:
    seen = bytearray()
    original = Stream.arrive

    def tapped(self: Stream, data: bytes) -> None:
        if isinstance(self.call, RelayCall | RelayedCall):
            seen.extend(data)
        original(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stream, "arrive", tapped)
        async with validator() as v, hidden(v) as executor, client() as pool:
            connection = await pool.connection(executor.address, v.relays(executor.address))
            assert await ask(connection, SECRET) == SECRET
    assert len(seen) > 2 * len(SECRET), "something did pass"
    assert SECRET not in seen
    assert executor.address not in seen, "not even whose certificate it is"


@on_both_loops
async def test_a_relay_that_changes_a_byte_ends_the_connection_and_is_to_blame() -> None:
    class Tamperer(Switchboard):
        async def _pass_on(self, source: Stream, sink: Stream, peers: Any) -> None:
            while (data := await source.receive()) is not None:
                spoil = answering.is_set() and isinstance(source.call, RelayedCall)
                await sink.send(data[:-1] + bytes([data[-1] ^ 1]) if spoil else data)

    async def answer(stream: Stream) -> None:
        answering.set()
        await stream.send(SECRET)
        await stream.finish()

    answering = asyncio.Event()
    async with validator(Tamperer) as v, hidden(v, handler=answer) as executor, client() as pool:
        connection = await pool.connection(executor.address, v.relays(executor.address))
        stream = await connection.open(CALL)
        with pytest.raises(PeerFault, match="TLS"):
            await read_all(stream)


@on_both_loops
async def test_a_relay_that_answers_itself_is_not_taken_for_the_executor() -> None:
    async with validator() as v, hidden(v) as other, client() as pool:
        victim = Identity.generate().address
        v.board._reserved[victim, 0] = v.board._reserved[other.address, 0]
        with pytest.raises(PeerFault):
            await pool.connection(victim, v.relays(victim))


@on_both_loops
async def test_who_has_not_reserved_is_not_reached() -> None:
    async with validator() as v, client() as pool:
        nobody = Identity.generate().address
        with pytest.raises(RetryElsewhere, match="not reached through here"):
            await pool.connection(nobody, v.relays(nobody))


@on_both_loops
async def test_when_a_relay_is_cut_the_next_request_goes_through_the_other() -> None:
    async with validator() as first, validator() as second, hidden(first, second) as executor, client() as pool:
        ways = {each: each.relays(executor.address) for each in (first, second)}
        assert set(executor.reservations.held) == set(ways.values())
        connection = await pool.connection(executor.address, ways[first])
        assert await ask(connection, b"before") == b"before"
        first.cut()
        await connection.closed.wait()
        assert await ask(await pool.connection(executor.address, ways[second]), b"after") == b"after"


@on_both_loops
async def test_a_validator_that_stops_waits_for_answers_and_for_nothing_else() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def answer(stream: Stream) -> None:
        await stream.send(b"be")
        begun.set()
        await go_on.wait()
        await stream.send(b"fore")
        await stream.finish()

    drain = {"drain_seconds": 3600}
    async with (
        validator(**drain) as first,
        validator() as second,
        hidden(first, second, handler=answer, **drain) as executor,
        client(**drain) as pool,
    ):
        ways = {each: each.relays(executor.address) for each in (first, second)}
        stream = await (await pool.connection(executor.address, ways[first])).open(CALL)
        await begun.wait()
        stops = asyncio.create_task(first.listener.close())
        await until(lambda: executor.reservations.held == (ways[second],))
        with pytest.raises(RetryElsewhere):
            await pool.connection(executor.address, ways[first])
        assert (first.board.reserved, first.board.streams, stops.done()) == (0, 1, False)
        go_on.set()
        assert await read_all(stream) == b"before"
        assert await ask(await pool.connection(executor.address, ways[second]), b"") == b"before"
        await stops


@on_both_loops
async def test_who_is_amid_a_handshake_when_a_relay_stops_leaves_after_it() -> None:
    me, asked, sign = Identity.generate(), asyncio.Event(), asyncio.Event()

    async def greet(audience: hello.Audience, limits: Limits) -> Hello:
        asked.set()
        await sign.wait()
        return hello.greet(me, audience, limits, time.time())

    async with validator(drain_seconds=3600) as v, hidden(v) as executor:
        outer = await dial(v.endpoint, v.identity.address, Link(me, NETWORK, settings()), lambda *_: None)

        async def relays(_validator: NodeId, _at: Endpoint) -> Connection:
            return outer

        link = Link(greet, NETWORK, settings(), relays)
        dialling = asyncio.create_task(dial(v.relays(executor.address), executor.address, link, lambda *_: None))
        await asked.wait()
        stops = asyncio.create_task(v.listener.close())
        await outer.leaving.wait()
        sign.set()
        connection = await dialling
        await stops
        assert connection.closed.is_set()


@on_both_loops
async def test_a_validator_that_stops_waits_for_no_connection_that_is_kept_warm() -> None:
    async with validator(drain_seconds=3600) as v, hidden(v) as executor, client() as pool:
        assert await ask(await pool.connection(executor.address, v.relays(executor.address)), b"") == b""
        await v.listener.close()


@on_both_loops
async def test_a_lost_reservation_is_made_up_for_elsewhere() -> None:
    async with AsyncExitStack() as stack:
        three = [await stack.enter_async_context(validator()) for _ in range(3)]
        executor = await stack.enter_async_context(hidden(*three))
        held = {each for each in three if each.board.reserved}
        lost = held.pop()
        spare = next(each for each in three if not each.board.reserved)
        executor.reservations.changed.clear()
        lost.cut()
        await until(lambda: spare.board.reserved == 1)
        await until(lambda: len(executor.reservations.held) == 2)
        assert executor.reservations.changed.is_set()
        assert lost.relays(executor.address) not in executor.reservations.held or lost.board.reserved


@on_both_loops
async def test_a_cut_reservation_at_the_only_validator_comes_back() -> None:
    async with validator() as v, hidden(v) as executor:
        v.cut()
        await until(lambda: not executor.reservations.held)
        await until(lambda: bool(executor.reservations.held))
        assert v.board.reserved == 1


@on_both_loops
async def test_reservations_that_are_not_wanted_any_more_are_given_up() -> None:
    async with validator() as v, hidden(v) as executor:
        executor.reservations.use(())
        await until(lambda: v.board.reserved == 0)
        assert executor.reservations.held == ()


@on_both_loops
async def test_the_newest_reservation_of_a_worker_wins() -> None:
    async with validator() as v:
        me = Identity.generate()
        link = Link(me, NETWORK, settings())
        streams = []
        for _ in range(2):
            connection = await dial(v.endpoint, v.identity.address, link, lambda *_: None)
            streams.append(await connection.open(ReserveCall(0)))
            assert await streams[-1].receive() == b"\x01"
        with pytest.raises(RetryElsewhere, match="reserved anew"):
            await streams[0].receive()
        assert v.board.reserved == 1
        v.cut()
        await asyncio.gather(*(stream.connection.closed.wait() for stream in streams))


@on_both_loops
async def test_a_client_has_so_many_relayed_connections_and_no_more() -> None:
    async with validator(streams_per_peer=1) as v, hidden(v) as one, hidden(v) as other, client() as pool:
        await pool.connection(one.address, v.relays(one.address))
        with pytest.raises(RetryElsewhere, match="Too many"):
            await pool.connection(other.address, v.relays(other.address))


@on_both_loops
async def test_a_worker_has_so_many_relayed_connections_and_gets_its_place_back() -> None:
    async with validator(streams_per_peer=1) as v, hidden(v) as executor, client() as later:
        async with client() as pool:
            await pool.connection(executor.address, v.relays(executor.address))
            with pytest.raises(RetryElsewhere, match="Too many"):
                await later.connection(executor.address, v.relays(executor.address))
        await until(lambda: v.board.streams == 0)
        await later.connection(executor.address, v.relays(executor.address))


@on_both_loops
async def test_one_network_has_a_share_of_the_connections_to_a_worker_only() -> None:
    async with validator(streams_per_peer=8) as v, hidden(v) as executor, AsyncExitStack() as stack:
        one, two, three = [await stack.enter_async_context(client()) for _ in range(3)]
        for pool in (one, two):
            await pool.connection(executor.address, v.relays(executor.address))
        with pytest.raises(RetryElsewhere, match="Too many"):
            await three.connection(executor.address, v.relays(executor.address))


@on_both_loops
async def test_one_network_begins_so_many_connections_a_second() -> None:
    async with validator() as v, AsyncExitStack() as stack:
        connection = await dial(
            v.endpoint, v.identity.address, Link(Identity.generate(), NETWORK, settings()), lambda *_: None
        )
        stack.push_async_callback(connection.close)
        executor = await stack.enter_async_context(hidden(v))
        v.board._now = lambda: 1.0
        begun = [await connection.open(RelayCall(executor.address, 0)) for _ in range(BEGUN_PER_SECOND)]
        more = await connection.open(RelayCall(executor.address, 0))
        with pytest.raises(RetryElsewhere, match="Too many"):
            await more.receive()
        for stream in begun:
            stream.cancel()


@on_both_loops
async def test_clients_behind_one_relay_are_not_taken_for_one() -> None:
    tight = {"connections_per_address": 1, "handshakes_per_address": 1}
    async with validator() as v, hidden(v, **tight) as executor, client() as one, client() as other:
        for pool in (one, other):
            connection = await pool.connection(executor.address, v.relays(executor.address))
            assert await ask(connection, b"here") == b"here"


@on_both_loops
async def test_one_relay_fills_half_of_the_places_and_leaves_the_others() -> None:
    async with validator() as v, hidden(v, connections=4) as executor, AsyncExitStack() as stack:
        way = v.relays(executor.address)
        pools = [await stack.enter_async_context(client()) for _ in range(3)]
        for pool in pools[:2]:
            await pool.connection(executor.address, way)
        with pytest.raises(RetryElsewhere):
            await pools[2].connection(executor.address, way)
        direct = Endpoint("127.0.0.1", executor.listener.port)
        assert await ask(await pools[2].connection(executor.address, direct), b"here") == b"here"


@on_both_loops
async def test_one_network_has_a_share_of_the_places_only() -> None:
    async with validator(executors=4) as v, hidden(v), AsyncExitStack() as stack:
        connection = await dial(
            v.endpoint, v.identity.address, Link(Identity.generate(), NETWORK, settings()), lambda *_: None
        )
        stack.push_async_callback(connection.close)
        stream = await connection.open(ReserveCall(0))
        with pytest.raises(RetryElsewhere, match="Too many"):
            await stream.receive()


@on_both_loops
async def test_a_client_that_stops_reading_holds_back_the_worker_and_nothing_piles_up() -> None:
    poured = 0

    async def pour(stream: Stream) -> None:
        nonlocal poured
        while True:
            await stream.send(bytes(10_000))
            poured += 10_000

    async with validator() as v, hidden(v, handler=pour) as executor, client() as pool:
        way = v.relays(executor.address)
        connection = await pool.connection(executor.address, way)
        stream = await connection.open(CALL)
        await until(lambda: stream.received == settings().stream_window)
        for _ in range(50):
            await asyncio.sleep(0)
        assert poured <= settings().stream_window + 10_000
        stream.cancel()


@on_both_loops
async def test_when_the_client_is_lost_the_work_at_the_executor_stops() -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def work(_: Stream) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with validator() as v, hidden(v, handler=work) as executor, client() as pool:
        connection = await pool.connection(executor.address, v.relays(executor.address))
        await connection.open(CALL)
        await started.wait()
        relay = await pool.connection(*v.whereabouts)
        relay.wire.abort()
        await stopped.wait()
        await until(lambda: v.board.streams == 0)


@on_both_loops
async def test_a_relayed_connection_that_falls_silent_gives_its_place_back() -> None:
    async with validator() as v, hidden(v) as executor, client() as pool:
        connection = await pool.connection(executor.address, v.relays(executor.address))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(switchboard, "SILENCE_SECONDS", 0.01)
            stream = await connection.open(CALL)
            await stream.finish()  # the answer to this is the last that is said
            await connection.closed.wait()
            await until(lambda: v.board.streams == 0)


@on_both_loops
async def test_a_validator_dials_back_the_address_it_is_asked_from() -> None:
    async with validator() as v, hidden(v) as executor:
        nobody = free_port()
        link = Link(executor.identity, NETWORK, settings(connect_seconds=1))
        pool = Pool(lambda at, who: dial(at, who, link, lambda *_: None), 8)
        found = await reach(pool, [v.whereabouts], [executor.listener.port, nobody], anywhere)
        assert found is not None
        assert (found.ports, found.host) == ({executor.listener.port}, "127.0.0.1")
        await pool.close()


@pytest.mark.parametrize(
    ("source", "seen"), [("127.0.0.2", "127.0.0.2"), ("0.0.0.0", "127.0.0.1"), ("::1", "127.0.0.1")]
)
async def test_who_listens_at_one_of_several_addresses_asks_from_there(source: str, seen: str) -> None:
    async with validator() as v:
        link = Link(Identity.generate(), NETWORK, settings(), source=source)
        pool = Pool(lambda at, who: dial(at, who, link, lambda *_: None), 8)
        answer = await inquire(pool, v.whereabouts, ReachCall((1,)), decoder(Reached), 5)
        assert answer.host == seen
        await pool.close()


@on_both_loops
async def test_somebody_elses_port_does_not_count_as_reached() -> None:
    async with validator() as v, hidden(v) as other, AsyncExitStack() as stack:
        link = Link(Identity.generate(), NETWORK, settings())
        pool = Pool(lambda at, who: dial(at, who, link, lambda *_: None), 8)
        stack.push_async_callback(pool.close)
        found = await reach(pool, [v.whereabouts], [other.listener.port], anywhere)
        assert found is not None
        assert not found.ports


@pytest.mark.parametrize(
    ("said", "believed"),
    [("203.0.113.9", "203.0.113.9"), ("10.0.0.1", None), ("0.0.0.0", None), ("example.org", None), ("", None)],
)
async def test_an_address_that_makes_no_sense_is_not_believed(said: str, believed: str | None) -> None:
    async def lie(stream: Stream) -> None:
        await stream.send(encode(Reached(said, ("",))))
        await stream.finish()

    public = addresses.Reach.of("0.0.0.0", private=False)
    async with validator() as v, client() as pool:
        v.listener.service = replace(v.listener.service, handler=lie)
        found = await reach(pool, [v.whereabouts], [9000], public.fits)
        assert found is not None
        assert (found.ports, found.host) == ({9000}, believed)


async def test_without_an_answer_nothing_is_known_of_our_reach() -> None:
    async def away(_: Endpoint, __: NodeId) -> Connection:
        raise RetryElsewhere("nobody there")

    nobody = [(Identity.generate().address, Endpoint("127.0.0.1", 1))]
    assert await reach(Pool(away, 8), nobody, [1], anywhere) is None
