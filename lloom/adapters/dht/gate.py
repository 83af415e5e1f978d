"""Which datagrams are worth acting upon, the cheapest check first. It never sends and never acts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from lloom.adapters.dht import wire
from lloom.adapters.dht.addresses import subnet
from lloom.adapters.dht.wire import Destination, Envelope, Sender
from lloom.core.buckets import Buckets
from lloom.core.datagram import CLIENT, GREETING, Replays, Sealed
from lloom.core.errors import PeerFault
from lloom.core.settings import DhtSettings

# Calls remembered in each of two generations, about 10 MB at worst. Who floods us with more can make us answer an old call again.
MAX_SEEN: Final = 65_536


class Arrival(NamedTuple):
    """A datagram that may be acted upon. `ahead`: seconds by which its sender's clock is ahead of ours."""

    sender: Sender
    kind: bytes
    message_id: bytes
    body: bytes
    greeting: bool
    ahead: float
    timely: bool


class Gate:
    """Guards one node: sizes, addresses, and whether anybody waits come before any signature is checked."""

    def __init__(self, envelope: Envelope, settings: DhtSettings) -> None:
        self._envelope = envelope
        self._skew = settings.clock_skew_seconds
        self._buckets = Buckets(settings.datagrams_per_second, settings.datagrams)
        # A time is valid from `skew` before it until `skew` after.
        self._replays = Replays(2 * settings.clock_skew_seconds, MAX_SEEN)

    def admit(self, data: bytes, addr: tuple[Any, ...], asked: Mapping[bytes, Destination], now: float) -> Arrival:
        """The datagram `data` from `addr`; PeerFault if it should be dropped. `asked`: whose answers we wait for."""
        sealed = self._envelope.open(data)
        host, port = addr[:2]
        if not self._envelope.accepts(host, port):
            raise PeerFault("a datagram from an address that cannot be answered")
        kind, message_id = sealed.message[:1], sealed.message[1 : wire.HEAD_BYTES]
        ahead = sealed.time - self._envelope.clock()
        timely = abs(ahead) <= self._skew
        if kind == wire.CALL:
            self._admit_call(sealed, message_id, subnet(host, port), now, timely)
        elif kind in (wire.ANSWER, wire.CLOCK):
            self._admit_answer(sealed, asked.get(message_id), (host, port), timely or kind == wire.CLOCK)
        else:
            raise PeerFault("a datagram of no known kind")
        client, greeting = bool(sealed.flags & CLIENT), bool(sealed.flags & GREETING)
        sender = Sender(host, port, client, sealed.sender, wire.room(len(data)))
        return Arrival(sender, kind, message_id, sealed.message[wire.HEAD_BYTES :], greeting, ahead, timely)

    def _admit_call(self, sealed: Sealed, message_id: bytes, source: str, now: float, timely: bool) -> None:
        if not self._buckets.take(source, now):
            raise PeerFault("more calls than this subnet may have answered")
        self._envelope.check(sealed)
        # Who has a wrong clock is told so, however often it asks: nothing else is done for it.
        if timely and self._replays.seen(sealed.sender, message_id, now):
            raise PeerFault("a call that was here before")

    def _admit_answer(self, sealed: Sealed, asked: Destination | None, source: tuple[str, int], timely: bool) -> None:
        if asked is None or asked[:2] != source or sealed.flags & GREETING or not timely:
            raise PeerFault("an answer that nobody asked for")
        if asked.id is not None and asked.id != sealed.sender:
            raise PeerFault("an answer of somebody who was not asked")
        self._envelope.check(sealed)
