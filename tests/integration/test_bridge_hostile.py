"""Strangers at the bridge who mean ill: none of them disturbs anybody but itself."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import time
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address
from random import Random

import pytest
from loguru import logger
from msgspec.structs import astuple

from lloom.adapters.bridge import Connection, Link, Stream, dial
from lloom.adapters.bridge.tls import client_context, server_context
from lloom.adapters.dht.addresses import Reach
from lloom.adapters.routing.pool import Pool
from lloom.core import messages
from lloom.core.bridge import hello
from lloom.core.bridge.frames import Kind
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import Identity
from lloom.core.messages import Cancel, Done, OfferCall, Refusal
from lloom.core.offer import Endpoint
from tests.integration.bridge_support import (
    LIMITS,
    NETWORK,
    Executor,
    Stranger,
    certificate,
    client,
    echo,
    executor,
    on_both_loops,
    read_all,
    settings,
    until,
)

OPEN = messages.encode(OfferCall())
END = messages.encode(Done())
WHY = messages.encode(Refusal(500, "why", "because"))
CANCEL = messages.encode(Cancel(0))


async def works(connection: Connection) -> None:
    """Somebody else's calls are answered."""
    stream = await connection.open(OfferCall())
    await stream.send(b"hello")
    await stream.finish()
    assert await read_all(stream) == b"hello"


async def gone(stranger: Stranger) -> None:
    """The stranger was hung up on."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await stranger.hear_all()
    stranger.writer.transport.abort()


async def let_in(to: Executor) -> Stranger:
    """A stranger who proved an identity: a peer that turns hostile."""
    stranger = await Stranger.knock(to)
    stranger.greet(to.identity.address)
    while not any(frame.kind is Kind.WELCOME for frame in await stranger.hear()):
        pass
    return stranger


# Who is at the other end


@contextlib.asynccontextmanager
async def in_the_middle(of: Executor, shown: ssl.SSLContext, heard: list[bytes]) -> AsyncIterator[Endpoint]:
    """Somebody on the path who ends TLS on both sides and passes on what he reads."""

    async def both_ways(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far = await asyncio.open_connection(of.endpoint.host, of.endpoint.port, ssl=client_context())

        async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while data := await source.read(65_536):
                    heard.append(data)
                    sink.write(data)
            sink.transport.abort()

        await asyncio.gather(pass_on(reader, far[1]), pass_on(far[0], writer))

    server = await asyncio.start_server(both_ways, "127.0.0.1", 0, ssl=shown)
    try:
        yield Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()


@on_both_loops
async def test_somebody_on_the_path_is_noticed_before_anything_is_said() -> None:
    heard: list[bytes] = []
    mallory = Identity.generate()
    async with executor(echo) as victim, client(victim) as bystander:
        for shown in (certificate(mallory), certificate(victim.identity, network="other")):
            async with in_the_middle(victim, server_context(shown), heard) as where:
                with pytest.raises(PeerFault):
                    await dial(where, victim.identity.address, link(), lambda _, __: None)
        await works(bystander)
    assert not any(b"Hello" in data for data in heard), "nobody says who he is to an impostor"


@on_both_loops
async def test_what_strangers_offer_makes_nobody_knock_at_machines_that_are_none_of_theirs() -> None:
    public, home = Reach.of("0.0.0.0", private=False), Reach.of("127.0.0.1", private=False)
    async with executor(echo) as innocent:
        mallory = Identity.generate()
        for endpoint in (innocent.endpoint, Endpoint(*astuple(innocent.endpoint)[:2], mallory.address)):
            with pytest.raises(RetryElsewhere, match="makes no sense"):
                await dial(endpoint, mallory.address, link(public), lambda _, __: None)
        assert not innocent.listener.knocking
        connection = await dial(innocent.endpoint, innocent.identity.address, link(home), lambda _, __: None)
        await works(connection)
        await connection.close()


@on_both_loops
async def test_a_hello_is_good_for_one_certificate_only() -> None:
    async with executor(echo) as first, client(first) as bystander:
        stranger = await Stranger.knock(first)
        said = hello.greet(
            stranger.identity,
            hello.Audience(NETWORK, first.identity.address, stranger.shown),
            LIMITS,
            time.time(),
        )
        first.listener.renew(certificate(first.identity))
        thief = await Stranger.knock(first)
        thief.say(Kind.HELLO, 0, messages.encode(said))
        assert Kind.GOAWAY in [frame.kind for frame in await thief.hear_all()]
        await works(bystander)
        stranger.writer.transport.abort()
        await gone(thief)


@on_both_loops
async def test_older_tls_is_refused_by_servers_and_by_clients() -> None:
    async with executor(echo) as victim:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(victim.endpoint.host, victim.endpoint.port, ssl=old)
        shown = server_context(certificate(victim.identity))
        shown.minimum_version = ssl.TLSVersion.TLSv1_2
        shown.maximum_version = ssl.TLSVersion.TLSv1_2
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=shown)
        where = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
        with pytest.raises(RetryElsewhere):
            await dial(where, victim.identity.address, link(), lambda _, __: None)
        server.close()


def link(reach: Reach | None = None) -> Link:
    """A stranger's; with `reach` it takes no endpoint for granted, and is reached through relays, too."""
    pool = Pool(lambda where, who: dial(where, who, made, lambda _, __: None), 8)
    fits = (lambda host: reach.fits(ip_address(host))) if reach is not None else None
    made = Link(Identity.generate(), NETWORK, settings(), pool.connection, fits=fits)
    return made


# Who takes places


@on_both_loops
async def test_half_open_connections_and_trickled_handshakes_end_and_others_are_served_meanwhile() -> None:
    async with executor(echo) as victim, client(victim) as bystander:
        victim.listener.service = replace(victim.listener.service, settings=settings(handshake_seconds=0.3))
        silent = [await asyncio.open_connection(victim.endpoint.host, victim.endpoint.port) for _ in range(20)]
        trickling = await asyncio.open_connection(victim.endpoint.host, victim.endpoint.port)
        for byte in b"\x16\x03\x01\x02\x00":
            trickling[1].write(bytes([byte]))
            await works(bystander)
        for reader, writer in [*silent, trickling]:
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
        await until(lambda: not victim.listener.knocking)
        await works(bystander)


@on_both_loops
async def test_one_address_holds_so_many_connections_and_no_more() -> None:
    async with executor(echo, connections_per_address=3) as victim:
        guests = [await let_in(victim) for _ in range(3)]
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await Stranger.knock(victim)
        guests[0].writer.transport.abort()
        await until(lambda: len(victim.listener.connections) == 2)
        guests[0] = await let_in(victim)
        for guest in guests:
            guest.writer.transport.abort()
        await until(lambda: not victim.listener.connections)
        assert not victim.listener._proven


@on_both_loops
async def test_one_address_begins_so_many_handshakes_a_second() -> None:
    async with executor(echo, handshakes_per_second=5) as victim:
        second, take = asyncio.get_running_loop().time(), victim.listener._rate.take
        victim.listener._rate.take = lambda source, _: take(source, second)  # type: ignore[method-assign]
        async with client(victim) as bystander:
            results = [await asyncio.gather(Stranger.knock(victim), return_exceptions=True) for _ in range(12)]
            strangers = [found for (found,) in results if isinstance(found, Stranger)]
            assert len(strangers) == 4, "and the bystander before them"
            await works(bystander)
            for stranger in strangers:
                stranger.writer.transport.abort()


@on_both_loops
async def test_a_listener_on_all_addresses_is_reached_over_both_families() -> None:
    from lloom.adapters.bridge import Listener, Service

    me = Identity.generate()
    service = Service(me.address, NETWORK, settings(), echo, lambda _, __: None)
    listener = await Listener.start("::", 0, certificate(me), service)
    for host in ("127.0.0.1", "::1"):
        connection = await dial(Endpoint(host, listener.port), me.address, link(), lambda _, __: None)
        await works(connection)
        await connection.close()
    await listener.close()


# Who was let in and turns hostile


@pytest.mark.parametrize(
    ("kind", "stream", "payload"),
    [
        (Kind.DATA, 1, b"x" * 100),
        (Kind.END, 7, END),
        (Kind.WINDOW, 3, b"\0\0\0\1"),
        (Kind.RESET, 9, WHY),
        (Kind.CANCEL, 5, CANCEL),
        (Kind.OPEN, 2, OPEN),
        (Kind.OPEN, 3, OPEN),
        (Kind.OPEN, 0, OPEN),
        (Kind.WINDOW, 0, b"\xff\xff\xff\xff"),
        (Kind.PONG, 0, b""),
        (Kind.HELLO, 0, b"\xc1"),
        (Kind.CONTROL, 0, b"\x91" * 2000),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else None,
)
def test_a_violation_ends_the_connection_it_came_on_and_nothing_else(kind: Kind, stream: int, payload: bytes) -> None:
    async def story() -> None:
        async with asyncio.timeout(20), executor(echo) as victim, client(victim) as bystander:
            guest = await let_in(victim)
            guest.say(kind, stream, payload)
            assert Kind.GOAWAY in [frame.kind for frame in await guest.hear_all()]
            await works(bystander)
            await gone(guest)

    asyncio.run(story())


async def hang(_: Stream) -> None:
    await asyncio.Event().wait()


@on_both_loops
async def test_ten_thousand_streams_are_two_hundred_and_fifty_six() -> None:
    async with executor(hang) as victim, client(victim) as bystander:
        guest = await let_in(victim)
        for number in range(10_000):
            guest.say(Kind.OPEN, 2 * number + 1, OPEN)
        frames = await guest.hear_all()
        assert Kind.GOAWAY in [frame.kind for frame in frames]
        stream = await bystander.open(OfferCall())
        stream.cancel()
        await gone(guest)
        await until(lambda: len(victim.listener.connections) == 1)


@pytest.mark.parametrize("last", [Kind.CANCEL, Kind.RESET])
def test_opening_and_giving_up_in_a_hurry_keeps_nobody_busy(last: Kind) -> None:
    running = 0
    most = 0

    async def work(stream: Stream) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.Event().wait()
        finally:
            running -= 1

    async def story() -> None:
        async with asyncio.timeout(20), executor(work) as victim, client(victim) as bystander:
            guest = await let_in(victim)
            for number in range(2000):
                guest.say(Kind.OPEN, 2 * number + 1, OPEN)
                guest.say(last, 2 * number + 1, CANCEL if last is Kind.CANCEL else WHY)
            stream = await bystander.open(OfferCall())
            stream.cancel()
            guest.writer.transport.abort()
            await until(lambda: len(victim.listener.connections) == 1)
            assert running <= 1
        assert most <= 257

    asyncio.run(story())


@on_both_loops
async def test_frames_of_one_byte_are_cut_short() -> None:
    async with executor(hang, small_frames_per_second=500) as victim, client(victim) as bystander:
        guest = await let_in(victim)
        guest.say(Kind.OPEN, 1, OPEN)
        for _ in range(5000):
            guest.say(Kind.DATA, 1, b"x")
        assert Kind.GOAWAY in [frame.kind for frame in await guest.hear_all()]
        stream = await bystander.open(OfferCall())
        stream.cancel()
        await gone(guest)


@on_both_loops
async def test_credit_that_was_not_granted_is_not_taken() -> None:
    async with executor(hang) as victim, client(victim) as bystander:
        guest = await let_in(victim)
        guest.say(Kind.OPEN, 1, OPEN)
        for _ in range(5):
            guest.say(Kind.DATA, 1, bytes(60_000))
        assert Kind.GOAWAY in [frame.kind for frame in await guest.hear_all()]
        stream = await bystander.open(OfferCall())
        stream.cancel()
        await gone(guest)


def test_strangers_that_come_and_go_leave_no_memory_behind() -> None:
    async def rounds(victim: Executor, count: int) -> None:
        for number in range(count):
            guest = await let_in(victim)
            guest.say(Kind.OPEN, 1, OPEN)
            guest.say(Kind.DATA, 1, bytes(60_000))
            if number % 2:
                guest.say(Kind.DATA, 99, b"violation" * 10)
            guest.writer.transport.abort()
        await until(lambda: not victim.listener.connections and not victim.listener.knocking)

    async def story() -> int:
        async with asyncio.timeout(50), executor(hang) as victim:
            await rounds(victim, 20)
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            await rounds(victim, 60)
            after = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            assert len(asyncio.all_tasks()) <= 2
            return after - before

    assert asyncio.run(story()) < 60 * 10_000


# Whatever comes


def frame_of_chance(dice: Random) -> tuple[Kind, int, bytes]:
    """A frame as it could be, or nearly."""
    fit = {
        Kind.OPEN: OPEN,
        Kind.DATA: dice.randbytes(dice.choice([1, 100, 10_000])),
        Kind.END: END,
        Kind.RESET: WHY,
        Kind.CANCEL: CANCEL,
        Kind.WINDOW: b"\0\0\0\1",
        Kind.PING: b"",
    }
    kind = dice.choice([*fit, *Kind])
    payload = fit.get(kind, b"")
    if dice.random() < 0.1 and payload:
        place = dice.randrange(len(payload))
        payload = payload[:place] + dice.randbytes(1) + payload[place + 1 :]
    return kind, dice.choice([0, 1, 1, 1, 3, 3, 5, 2]), payload


async def fuzz(victim: Executor, dice: Random) -> None:
    """One stranger who says what comes to his mind: before TLS, instead of HELLO, within it, or after it."""
    how = dice.randrange(4)
    if how == 0:
        reader, writer = await asyncio.open_connection(victim.endpoint.host, victim.endpoint.port)
        writer.write(dice.choice([b"\x16\x03\x01", b""]) + dice.randbytes(dice.randrange(1, 4000)))
        guest = Stranger(reader, writer)
    else:
        guest = await Stranger.knock(victim)
    if how == 1:
        guest.writer.write(dice.randbytes(dice.randrange(1, 4000)))
    if how == 2:
        audience = hello.Audience(NETWORK, victim.identity.address, guest.shown)
        said = messages.encode(hello.greet(guest.identity, audience, LIMITS, time.time()))
        place = dice.randrange(len(said))
        guest.say(Kind.HELLO, 0, said[:place] + dice.randbytes(1) + said[place + 1 :])
    if how == 3:
        guest.greet(victim.identity.address)
        for _ in range(dice.randrange(1, 30)):
            guest.say(*frame_of_chance(dice))
    with contextlib.suppress(TimeoutError, ConnectionError, ssl.SSLError):
        async with asyncio.timeout(0.02):
            await guest.hear_all()
    guest.writer.transport.abort()


def test_whatever_strangers_say_is_answered_without_a_crash_and_leaves_nothing_behind() -> None:
    dice, said = Random(4), []
    sink = logger.add(said.append, level="ERROR")

    async def rounds(victim: Executor, count: int) -> None:
        for _ in range(count):
            await fuzz(victim, dice)
        await until(lambda: not victim.listener.connections and not victim.listener.knocking)

    async def story() -> int:
        unseen: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        async with asyncio.timeout(80), executor(echo, handshake_seconds=1) as victim:
            await rounds(victim, 60)
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            await rounds(victim, 240)
            gc.collect()
            after = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            async with client(victim) as bystander:
                await works(bystander)
            assert not unseen
            return after - before

    try:
        assert asyncio.run(story()) < 240 * 2000
    finally:
        logger.remove(sink)
    assert not said
