"""The bridge over real TCP and TLS on loopback, on both event loops."""

from __future__ import annotations

import asyncio
import os
import select
import time
from typing import Any

import pytest

from lloom.adapters.bridge import Connection, Link, Stream, dial
from lloom.core.bridge.certificate import check
from lloom.core.bridge.frames import Frame, Kind, encode
from lloom.core.errors import CallerFault, PeerFault, RetryElsewhere
from lloom.core.identity import Identity, NodeId
from lloom.core.messages import Cancel, Done, OfferCall, Receipts, Refusal, SignedReceipt, decode, decoder
from lloom.core.messages import encode as pack
from lloom.core.offer import Endpoint
from tests.integration.bridge_support import (
    NETWORK,
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

CALL = OfferCall()
RECEIPTS = Receipts([SignedReceipt(b"receipt", b"s" * 65)])


async def ask(connection: Connection, question: bytes) -> bytes:
    """The answer to one call."""
    stream = await connection.open(CALL)
    _, answer = await asyncio.gather(send(stream, question), read_all(stream))
    return answer


async def send(stream: Stream, question: bytes) -> None:
    await stream.send(question)
    await stream.finish()


async def pour(stream: Stream) -> None:
    """An answer without end."""
    while True:
        await stream.send(bytes(1000))


async def pause(stream: Stream) -> None:
    """An answer that never begins."""
    await asyncio.Event().wait()


def why(frames: list[Frame]) -> Refusal:
    """The reason of the GOAWAY at the end of `frames`."""
    assert frames[-1].kind is Kind.GOAWAY
    return decode(frames[-1].payload, decoder(Refusal))


# Calls


@on_both_loops
async def test_a_call_is_answered() -> None:
    async with executor(echo) as server, client(server) as connection:
        assert await ask(connection, b"hello") == b"hello"
        assert connection.peer == server.identity.address
        assert connection.streams == 0


@on_both_loops
async def test_a_whole_request_is_with_the_kernel_before_its_task_waits_for_anything() -> None:
    async with executor(echo) as server, client(server) as connection:
        await ask(connection, b"the first one")
        (accepted,) = server.listener.connections
        assert accepted.wire._transport is not None
        far_end = accepted.wire._transport.get_extra_info("socket").fileno()
        assert not select.select([far_end], [], [], 0)[0]
        stream = await connection.open(CALL)
        await send(stream, b"hello")
        assert select.select([far_end], [], [], 0)[0]
        assert await read_all(stream) == b"hello"


@on_both_loops
async def test_many_streams_in_parallel_keep_apart_what_is_larger_than_their_windows() -> None:
    small = {"stream_window": 5000, "connection_window": 40_000}
    async with executor(echo, **small) as server, client(server, **small) as connection:
        questions = [os.urandom(1 + 997 * i) for i in range(40)]
        assert await asyncio.gather(*(ask(connection, question) for question in questions)) == questions


@on_both_loops
async def test_what_was_counted_comes_with_the_end() -> None:
    async def count(stream: Stream) -> None:
        await stream.finish(Done(3, 4, b"{}"))

    async with executor(count) as server, client(server) as connection:
        stream = await connection.open(CALL)
        assert await stream.receive() is None
        assert await stream.receive() is None
        assert stream.done == Done(3, 4, b"{}")


@on_both_loops
async def test_who_waits_no_longer_than_to_a_time_gets_what_is_there_and_what_comes_after_it() -> None:
    go = asyncio.Event()

    async def late(stream: Stream) -> None:
        await stream.send(b"at once")
        await go.wait()
        await stream.send(b"later")
        await stream.finish()

    async with executor(late) as server, client(server) as connection:
        now = asyncio.get_running_loop().time()
        stream = await connection.open(CALL)
        await until(lambda: stream.received > 0)
        assert await stream.receive(now) == b"at once"
        with pytest.raises(TimeoutError):
            await stream.receive(now)
        with pytest.raises(TimeoutError):
            await stream.send(bytes(2 * settings().stream_window), now)
        go.set()
        assert await stream.receive(now + 60) == b"later"


async def test_who_was_woken_in_time_leaves_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers, later = asyncio.get_running_loop(), [], asyncio.get_running_loop().call_at

    def noted(when: float, act: Any, *given: Any, **more: Any) -> asyncio.TimerHandle:
        timer = later(when, act, *given, **more)
        if when == in_an_hour:
            timers.append(timer)
        return timer

    async def echo(stream: Stream) -> None:
        data = await stream.receive(in_an_hour)
        assert data is not None
        await stream.send(data, in_an_hour)
        await stream.finish()

    in_an_hour = loop.time() + 3600
    monkeypatch.setattr(loop, "call_at", noted)
    async with asyncio.timeout(20), executor(echo) as server, client(server) as connection:
        stream = await connection.open(CALL)
        answer = asyncio.create_task(stream.receive(in_an_hour))
        await until(lambda: len(timers) == 2)
        await stream.send(b"x")
        assert await answer == b"x"
        assert all(timer.cancelled() for timer in timers)
        assert await read_all(stream) == b""


@on_both_loops
async def test_a_slow_reader_blocks_neither_another_stream_nor_a_control_message() -> None:
    async def answer(stream: Stream) -> None:
        if await stream.receive() == b"pour":
            await pour(stream)
        stream.connection.send_control(RECEIPTS)
        await stream.send(bytes(1_000_000))
        await stream.finish()

    told: list[object] = []
    async with executor(answer) as server, client(server, told) as connection:
        slow = await connection.open(CALL)
        await slow.send(b"pour")
        await until(lambda: slow.received == settings().stream_window)
        assert len(await ask(connection, b"something else")) == 1_000_000
        assert told == [RECEIPTS]
        assert slow.received == settings().stream_window, "a reader that does not read holds one window, no more"
        slow.cancel()


@on_both_loops
async def test_many_slow_readers_together_block_nobody_either() -> None:
    async def answer(stream: Stream) -> None:
        if await stream.receive() == b"pour":
            await pour(stream)
        await stream.send(bytes(1_000_000))
        await stream.finish()

    window = settings().stream_window
    async with executor(answer) as server, client(server, connection_window=32 * window) as connection:
        slow = [await connection.open(CALL) for _ in range(30)]
        for stream in slow:
            await stream.send(b"pour")
        await until(lambda: all(stream.received == window for stream in slow))
        assert len(await ask(connection, b"something else")) == 1_000_000
        assert connection.session._window.held == len(slow) * window
        for stream in slow:
            stream.cancel()


@on_both_loops
async def test_a_cancel_stops_the_handler_and_tells_it_how_much_arrived() -> None:
    stopped: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()

    async def answer(stream: Stream) -> None:
        try:
            await pour(stream)
        finally:
            stopped.set_result(stream)

    async with executor(answer) as server, client(server) as connection:
        stream = await connection.open(CALL)
        await stream.receive()
        stream.cancel()
        stream.cancel()
        theirs = await stopped
        assert theirs.cancelled is not None
        assert theirs.cancelled.received == stream.received
        assert 0 < stream.received <= theirs.sent
        with pytest.raises(RetryElsewhere):
            await stream.receive()


@on_both_loops
async def test_a_cancelled_stream_gives_all_its_credit_back() -> None:
    async def answer(stream: Stream) -> None:
        await (pour if await stream.receive() == b"pour" else echo)(stream)

    async with executor(answer) as server, client(server, connection_window=300_000) as connection:
        for _ in range(10):
            stream = await connection.open(CALL)
            await stream.send(b"pour")
            await until(lambda: stream.received > 200_000)  # noqa: B023 - it is over within this turn
            stream.cancel()
        stream = await connection.open(CALL)
        await stream.send(b"?")
        await send(stream, b"x" * 100_000)
        assert len(await read_all(stream)) == 100_000


@on_both_loops
async def test_a_handler_that_raises_refuses_with_its_reason_and_an_unexpected_error_stays_at_home() -> None:
    async def answer(stream: Stream) -> None:
        order = await stream.receive()
        if order == b"busy":
            raise RetryElsewhere("no place is free", status=429, code="busy", retry_after=1.5)
        if order == b"wrong":
            raise CallerFault("no such parameter", status=400, code="unknown", param="top_q")
        raise ValueError("secret")

    async with executor(answer) as server, client(server) as connection:
        with pytest.raises(RetryElsewhere, match="no place is free") as busy:
            await ask(connection, b"busy")
        assert (busy.value.status, busy.value.code, busy.value.retry_after) == (429, "busy", 1.5)
        with pytest.raises(CallerFault, match="no such parameter") as wrong:
            await ask(connection, b"wrong")
        assert wrong.value.param == "top_q"
        with pytest.raises(RetryElsewhere) as broken:
            await ask(connection, b"break")
        assert broken.value.status == 500
        assert "secret" not in str(broken.value)


@on_both_loops
async def test_what_came_before_a_reset_is_still_read() -> None:
    async def answer(stream: Stream) -> None:
        await stream.send(b"half an ans")
        raise RetryElsewhere("the backend failed")

    async with executor(answer) as server, client(server) as connection:
        stream = await connection.open(CALL)
        assert await stream.receive() == b"half an ans"
        with pytest.raises(RetryElsewhere, match="the backend failed"):
            await stream.receive()


@on_both_loops
async def test_an_answer_may_come_before_the_whole_request_and_its_sender_is_told() -> None:
    async def answer(stream: Stream) -> None:
        await stream.send(b"enough")
        await stream.finish()

    async with executor(answer, connection_window=1_000_000) as server, client(server) as connection:
        for _ in range(20):  # what was sent in vain costs no credit for ever
            stream = await connection.open(CALL)
            with pytest.raises(RetryElsewhere):
                await stream.send(bytes(10_000_000))
            assert await read_all(stream) == b"enough"
        assert connection.streams == 0


@on_both_loops
async def test_what_a_backend_said_out_of_bounds_still_reaches_the_caller() -> None:
    async def answer(stream: Stream) -> None:
        raise RetryElsewhere("\ud800" * 5000, status=302, code="x" * 100, retry_after=float("inf"))

    async with executor(answer) as server, client(server) as connection:
        with pytest.raises(RetryElsewhere) as refused:
            await ask(connection, b"hello")
        assert (refused.value.status, refused.value.code, refused.value.retry_after) == (502, "x" * 64, None)


@on_both_loops
async def test_a_peer_cannot_blame_the_caller_for_the_end_of_a_connection() -> None:
    async with executor(pause) as server, client(server) as connection:
        stream = await connection.open(CALL)
        await until(lambda: bool(server.listener.connections))
        (theirs,) = server.listener.connections
        theirs.session.close(Refusal(400, "your_fault", "it is your fault", elsewhere=False))
        theirs.flush_soon()
        with pytest.raises(RetryElsewhere, match="it is your fault"):
            await stream.receive()


@on_both_loops
async def test_a_handler_that_forgets_to_answer_is_noticed() -> None:
    async def forget(stream: Stream) -> None:
        await stream.receive()

    async with executor(forget) as server, client(server) as connection:
        with pytest.raises(RetryElsewhere, match="without an answer"):
            await ask(connection, b"hello")


@on_both_loops
async def test_no_more_streams_are_opened_than_the_peer_allows() -> None:
    async with executor(pause, streams=2) as server, client(server) as connection:
        streams = [await connection.open(CALL) for _ in range(2)]
        with pytest.raises(RetryElsewhere, match="at once") as full:
            await connection.open(CALL)
        assert full.value.retry_after is not None, "else it would count as a failure of the peer"
        streams[0].cancel()
        await until(lambda: connection.streams == 1)
        streams.append(await connection.open(CALL))
        for stream in streams:
            stream.cancel()


@on_both_loops
async def test_both_sides_may_open_and_a_client_answers_no_calls() -> None:
    async with executor(echo) as server, client(server):
        (connection,) = server.listener.connections
        stream = await connection.open(CALL)
        with pytest.raises(RetryElsewhere, match="answers no calls"):
            await read_all(stream)


@on_both_loops
async def test_control_messages_go_both_ways() -> None:
    arrived = asyncio.Event()
    async with executor(echo) as server:
        link = Link(Identity.generate(), NETWORK, settings())
        connection = await dial(server.endpoint, server.identity.address, link, lambda _, message: arrived.set())
        connection.send_control(RECEIPTS)
        await ask(connection, b"hello")
        assert server.told == [RECEIPTS]
        (theirs,) = server.listener.connections
        theirs.send_control(RECEIPTS)
        await arrived.wait()
        await connection.close()
        connection.send_control(RECEIPTS)


# Who is who


@on_both_loops
async def test_the_acceptor_knows_who_dialled() -> None:
    async with executor(echo) as server:
        identity = Identity.generate()
        link = Link(identity, NETWORK, settings())
        connection = await dial(server.endpoint, server.identity.address, link, lambda *_: None)
        assert [theirs.peer for theirs in server.listener.connections] == [identity.address]
        await connection.close()


@on_both_loops
async def test_a_server_with_somebody_elses_certificate_is_refused() -> None:
    async with executor(echo, shown=certificate(Identity.generate())) as server:
        with pytest.raises(PeerFault, match="not 0x"):
            async with client(server):
                pass
        assert not server.listener.connections


@on_both_loops
async def test_a_server_at_the_address_of_another_is_refused() -> None:
    async with executor(echo) as server:
        link = Link(Identity.generate(), NETWORK, settings())
        with pytest.raises(PeerFault, match="not 0x"):
            await dial(server.endpoint, Identity.generate().address, link, lambda *_: None)


@on_both_loops
async def test_an_expired_certificate_is_refused() -> None:
    identity = Identity.generate()
    async with executor(echo, shown=certificate(identity, now=time.time() - 7200)) as server:
        server.identity = identity
        with pytest.raises(PeerFault, match="not valid now"):
            async with client(server):
                pass


@on_both_loops
async def test_a_hello_made_for_another_server_is_refused() -> None:
    async with executor(echo) as server:
        stranger = await Stranger.knock(server)
        stranger.greet(NodeId(Identity.generate().address))
        refusal = why(await stranger.hear_all())
        assert refusal.code == "bad_signature"
        assert not server.listener.connections
        stranger.writer.close()


@on_both_loops
async def test_an_old_hello_is_refused() -> None:
    async with executor(echo) as server:
        stranger = await Stranger.knock(server)
        stranger.greet(server.identity.address, timestamp=int(time.time() * 1000) - 61_000)
        assert why(await stranger.hear_all()).code == "bad_hello"
        stranger.writer.close()


@on_both_loops
async def test_a_call_before_the_hello_runs_nothing() -> None:
    called = False

    async def answer(stream: Stream) -> None:
        nonlocal called
        called = True

    async with executor(answer) as server:
        stranger = await Stranger.knock(server)
        stranger.say(Kind.OPEN, 1, pack(CALL))
        assert why(await stranger.hear_all()).code == "protocol"
        stranger.writer.close()
    assert not called


@on_both_loops
async def test_a_renewed_certificate_is_shown_to_those_who_come_later() -> None:
    async with executor(echo) as server, client(server) as early:
        server.listener.renew(certificate(server.identity, now=time.time() + 60))
        stranger = await Stranger.knock(server)
        check(stranger.shown, server.identity.address, NETWORK, time.time() + 3640)
        stranger.writer.close()
        async with client(server) as late:
            assert await ask(late, b"late") == b"late"
        assert await ask(early, b"early") == b"early"


# Hostile and broken peers


@on_both_loops
async def test_garbage_closes_only_the_connection_it_came_on() -> None:
    async with executor(echo) as server, client(server) as bystander:
        reader, writer = await asyncio.open_connection(server.endpoint.host, server.endpoint.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.read()
        writer.close()
        stranger = await Stranger.knock(server)
        stranger.writer.write(b"\xff" * 100)
        assert why(await stranger.hear_all()).code == "protocol"
        stranger.writer.close()
        peer = await Stranger.knock(server)
        peer.greet(server.identity.address)
        assert [frame.kind for frame in await peer.hear()] == [Kind.WELCOME]
        peer.say(Kind.DATA, 1, b"on a stream that is not open")
        assert why(await peer.hear_all()).code == "protocol"
        peer.writer.close()
        assert await ask(bystander, b"hello") == b"hello"
        assert len(server.listener.connections) == 1


@on_both_loops
async def test_a_frame_cut_off_by_the_end_of_the_connection_disturbs_nobody() -> None:
    async with executor(echo) as server, client(server) as bystander:
        peer = await Stranger.knock(server)
        peer.greet(server.identity.address)
        await peer.hear()
        peer.writer.write(b"\x00\x00")
        peer.writer.close()
        await until(lambda: len(server.listener.connections) == 1)
        assert await ask(bystander, b"hello") == b"hello"


@on_both_loops
async def test_a_stranger_that_says_nothing_is_hung_up_on() -> None:
    async with executor(echo, handshake_seconds=0.1) as server:
        reader, writer = await asyncio.open_connection(server.endpoint.host, server.endpoint.port)
        assert await reader.read() == b""
        writer.close()
    async with executor(echo) as server:
        stranger = await Stranger.knock(server)
        (knocking,) = server.listener.knocking
        knocking.session._liveness._deadline = 0.0  # its time is over, though TLS was up in time
        knocking._set_timer()
        assert why(await stranger.hear_all()).code == "slow_handshake"
        stranger.writer.close()
        assert not server.listener.knocking


@on_both_loops
async def test_a_server_that_says_nothing_is_given_up() -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    endpoint = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
    link = Link(Identity.generate(), NETWORK, settings(handshake_seconds=0.1))
    with pytest.raises(RetryElsewhere, match="too long"):
        await dial(endpoint, Identity.generate().address, link, lambda *_: None)
    await gone.wait()
    server.close()


@on_both_loops
async def test_a_port_where_nobody_listens_is_told_with_its_address() -> None:
    async with executor(echo) as server:
        endpoint = server.endpoint
    link = Link(Identity.generate(), NETWORK, settings())
    with pytest.raises(RetryElsewhere, match=str(endpoint.port)):
        await dial(endpoint, Identity.generate().address, link, lambda *_: None)


@on_both_loops
async def test_strangers_at_once_are_limited_and_a_place_becomes_free_again() -> None:
    for limit in ("handshakes", "handshakes_per_address", "connections"):
        async with executor(echo, **{limit: 1}) as server:
            stranger = await Stranger.knock(server)
            with pytest.raises(RetryElsewhere):
                async with client(server):
                    pass
            stranger.writer.close()
            await until(lambda: not server.listener.knocking)
            async with client(server) as connection:
                assert await ask(connection, b"hello") == b"hello"


@on_both_loops
async def test_a_peer_that_answers_no_pings_is_dead() -> None:
    stopped = asyncio.Event()

    async def answer(stream: Stream) -> None:
        try:
            await pause(stream)
        finally:
            stopped.set()

    async with executor(answer, ping_seconds=0.05, handshake_seconds=60) as server:
        peer = await Stranger.knock(server)
        peer.greet(server.identity.address)
        peer.say(Kind.OPEN, 1, pack(CALL)) if await peer.hear() else None
        frames = await peer.hear_all()
        assert why(frames).code == "dead"
        assert [frame.kind for frame in frames] == [Kind.PING, Kind.PING, Kind.GOAWAY]
        await stopped.wait()
        peer.writer.close()


@on_both_loops
async def test_a_peer_that_makes_us_write_and_never_reads_is_hung_up_on() -> None:
    async with executor(echo, send_buffer=1000, control_bytes=8192) as server:
        peer = await Stranger.knock(server)
        peer.greet(server.identity.address)
        await peer.hear()
        peer.writer.transport.pause_reading()
        pings = encode(Frame(Kind.PING, 0, b"")) * 50_000
        while server.listener.connections:  # the kernel buffers a lot before we notice
            peer.writer.write(pings)
            await asyncio.sleep(0)
        peer.writer.transport.abort()


# Endings


@on_both_loops
async def test_a_node_that_stops_lets_open_streams_end_and_takes_no_new_ones() -> None:
    go_on = asyncio.Event()

    async def answer(stream: Stream) -> None:
        await stream.send(b"begun, ")
        await go_on.wait()
        await stream.send(b"ended")
        await stream.finish()

    async with executor(answer) as server, client(server) as connection:
        stream = await connection.open(CALL)
        await stream.receive()
        stopping = asyncio.create_task(server.listener.close())
        await until(lambda: connection.session.leaving)
        with pytest.raises(RetryElsewhere, match="takes no more requests"):
            await connection.open(CALL)
        go_on.set()
        assert await read_all(stream) == b"ended"
        await stopping
        await connection.closed.wait()


@on_both_loops
async def test_a_node_that_stops_does_not_wait_for_ever() -> None:
    async with executor(pause, drain_seconds=0.1) as server, client(server) as connection:
        stream = await connection.open(CALL)
        await server.listener.close()
        with pytest.raises(RetryElsewhere):
            await stream.receive()


@on_both_loops
async def test_a_node_that_stops_hangs_up_on_the_last_word_of_its_peer_even_if_it_has_no_answer_to_it() -> None:
    async def answer(stream: Stream) -> None:
        await stream.finish()

    async with executor(answer, drain_seconds=60) as server:
        peer = await Stranger.knock(server)
        peer.greet(server.identity.address)
        await peer.hear()
        peer.say(Kind.OPEN, 1, pack(CALL))
        assert [frame.kind for frame in await peer.hear()] == [Kind.END]
        stopping = asyncio.create_task(server.listener.close())
        assert [frame.kind for frame in await peer.hear()] == [Kind.GOAWAY]
        peer.say(Kind.CANCEL, 1, pack(Cancel(0)))
        assert await peer.hear_all() == []
        await stopping
        peer.writer.close()


@on_both_loops
async def test_the_loss_of_a_connection_is_a_reason_to_retry_elsewhere_after_what_came_before() -> None:
    async def answer(stream: Stream) -> None:
        await stream.send(b"half an ans")
        await pause(stream)

    async with executor(answer) as server, client(server) as connection:
        stream = await connection.open(CALL)
        await until(lambda: stream.received > 0)
        (theirs,) = server.listener.connections
        theirs.wire.abort()
        await connection.closed.wait()
        assert await stream.receive() == b"half an ans"
        with pytest.raises(RetryElsewhere, match="was lost"):
            await stream.receive()
        with pytest.raises(RetryElsewhere):
            await stream.send(b"more")
        with pytest.raises(RetryElsewhere):
            await connection.open(CALL)
        stream.cancel()


@on_both_loops
async def test_a_caller_that_vanishes_stops_the_work() -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def answer(stream: Stream) -> None:
        begun.set()
        try:
            await pour(stream)
        finally:
            stopped.set()

    async with executor(answer) as server:
        async with client(server) as connection:
            await connection.open(CALL)
            await begun.wait()
            connection.wire.abort()
            await stopped.wait()
        await until(lambda: not server.listener.connections)


@on_both_loops
async def test_a_connection_that_nobody_uses_is_closed() -> None:
    async with executor(echo) as server, client(server, idle_seconds=0.1, handshake_seconds=60) as connection:
        await connection.closed.wait()
        with pytest.raises(RetryElsewhere):
            await connection.open(CALL)


@on_both_loops
async def test_a_dial_that_is_cancelled_leaves_nothing_behind() -> None:
    async with executor(echo) as server:
        link = Link(Identity.generate(), NETWORK, settings())
        dialling = asyncio.create_task(dial(server.endpoint, server.identity.address, link, lambda *_: None))
        while not server.listener.knocking:  # noqa: ASYNC110 - every turn of the loop: it does not knock for long
            await asyncio.sleep(0)
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        await until(lambda: not server.listener.knocking and not server.listener.connections)
