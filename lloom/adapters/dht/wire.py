"""The messages within datagrams: calls, answers, each field with its bounds; and the envelope around them. It never sends.

A message is rpcudp's: 0 (call), 1 (answer) or 2 (your clock is off), message id (20 bytes), msgpack. A call is
`[name, arguments]`; who calls stands in the header of the datagram (`core.datagram`), and so does the time that a CLOCK tells.

Nobody can be made to flood a third party by calls in its name: all that a call brings about there is at most three times as
long as the call (as RFC 9000, 8.1). So calls that want a long answer are padded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from lloom.adapters.dht.addresses import Reach
from lloom.core import datagram
from lloom.core.datagram import HEADER_BYTES, Sealed
from lloom.core.errors import PeerFault
from lloom.core.identity import Identity, NodeId
from lloom.core.records import MAX_RECORD

T = TypeVar("T")

CALL: Final = b"\x00"
ANSWER: Final = b"\x01"
CLOCK: Final = b"\x02"
MESSAGE_ID_BYTES: Final = 20
# What precedes the msgpack.
HEAD_BYTES: Final = 1 + MESSAGE_ID_BYTES

# IPv6 guarantees packets of 1,280 bytes; less its header and UDP's.
MAX_DATAGRAM: Final = 1232
MAX_ANSWER: Final = MAX_DATAGRAM - HEADER_BYTES - HEAD_BYTES
# 44 bytes each at worst: of the first kind as many as fit, of the second as many as leave room for records.
NEIGHBOUR_BYTES: Final = 44
MAX_NEIGHBOURS: Final = 20
MAX_NEIGHBOURS_BESIDE_RECORDS: Final = 8
# Around records and neighbours: array heads and the total; and the head of each record.
FOUND_OVERHEAD: Final = 16
RECORD_OVERHEAD: Final = 3
# What may go to an unproven address, as a multiple of what came from there: the answer, and the ping that proves the address.
AMPLIFICATION: Final = 3
PING_BYTES: Final = HEADER_BYTES + HEAD_BYTES + 7
# A call as long as this may have the longest answer.
FULL_CALL: Final = -(-(MAX_DATAGRAM + PING_BYTES) // AMPLIFICATION)

Id = Annotated[bytes, Meta(min_length=20, max_length=20)]
PackedRecord = Annotated[bytes, Meta(max_length=MAX_RECORD)]
PackedHost = Annotated[bytes, Meta(min_length=4, max_length=16)]
Port = Annotated[int, Meta(ge=1, le=65_535)]
Padding = Annotated[bytes, Meta(max_length=FULL_CALL)]
Sockets = Callable[[], Collection[tuple[str, int]]]
"""Hosts and ports, as they are now."""
Neighbour = tuple[Id, PackedHost, Port]
"""Node id, address as 4 or 16 bytes, UDP port."""

Method = Literal["ping", "store", "find_node", "find_value"]


class Found(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Answer to find_value: a page of records, how many there are in all, and neighbours nearer to the key."""

    records: Annotated[list[PackedRecord], Meta(max_length=64)]
    total: Annotated[int, Meta(ge=0, lt=1 << 32)]
    neighbours: Annotated[list[Neighbour], Meta(max_length=MAX_NEIGHBOURS)]


Neighbours = Annotated[list[Neighbour], Meta(max_length=MAX_NEIGHBOURS)]

_encode = msgspec.msgpack.Encoder().encode
_call = msgspec.msgpack.Decoder(tuple[Method, msgspec.Raw])
# find_value names the publisher after which the page shall begin. The find calls end with padding.
_arguments: Final[dict[str, msgspec.msgpack.Decoder[Any]]] = {
    "ping": msgspec.msgpack.Decoder(tuple[()]),
    "store": msgspec.msgpack.Decoder(tuple[Id, PackedRecord]),
    "find_node": msgspec.msgpack.Decoder(tuple[Id, Padding]),
    "find_value": msgspec.msgpack.Decoder(tuple[Id, Id, Padding]),
}
# Where the answerer sees the caller.
ping_answer = msgspec.msgpack.Decoder(tuple[PackedHost, Port])
store_answer = msgspec.msgpack.Decoder(bool)
find_node_answer = msgspec.msgpack.Decoder(Neighbours)
find_value_answer = msgspec.msgpack.Decoder(Found)


class Sender(NamedTuple):
    """Who sent a datagram, proven, and from where. `client`: it wants to be in no routing table."""

    host: str
    port: int
    client: bool
    id: NodeId
    room: int
    """How many bytes of msgpack the answer may have."""


class Destination(NamedTuple):
    """Where a datagram goes, and for whom it is; None: for whoever is there. rpcudp hands it through as the address."""

    host: str
    port: int
    id: NodeId | None


@dataclass(slots=True)
class Envelope:
    """What surrounds every datagram of one node: who it is, its network, its clock (Unix seconds), whom it may reach.

    `client` may change while it is in use. `only`: the sockets that a node which hides talks to, and hears; None: it does not.
    """

    identity: Identity
    network: str
    tag: bytes
    reach: Reach
    client: bool
    clock: Callable[[], float]
    only: Sockets | None = None

    @classmethod
    def of(
        cls,
        identity: Identity,
        network: str,
        reach: Reach,
        client: bool,
        clock: Callable[[], float],
        only: Sockets | None = None,
    ) -> Envelope:
        """The envelope of the node `identity` of `network` (its name)."""
        return cls(identity, network, datagram.tag(network), reach, client, clock, only)

    def accepts(self, host: str, port: int) -> bool:
        """True if a datagram may go to, or come from, `host`:`port`."""
        return self.reach.accepts(host, port) and (self.only is None or (host, port) in self.only())

    def close(self, message: bytes, recipient: NodeId | None) -> bytes:
        """`message` as it goes over the wire to `recipient` (None: to whoever is there)."""
        return datagram.seal(
            message, self.identity, self.network, recipient=recipient, client=self.client, now=self.clock()
        )

    def open(self, data: bytes) -> Sealed:
        """The parts of the datagram `data`, its signature unchecked; PeerFault if it is none of our network, or too long."""
        if len(data) > MAX_DATAGRAM or len(data) < HEADER_BYTES + HEAD_BYTES:
            raise PeerFault("a datagram of impossible size")
        return datagram.unseal(data, self.tag)

    def check(self, sealed: Sealed) -> None:
        """PeerFault unless the sender signed it for us, or for whoever is here."""
        datagram.check(sealed, self.network, self.identity.address)


def padded(method: Method, *arguments: object) -> tuple[object, ...]:
    """`arguments` with the padding that makes the call long enough for the longest answer."""
    length = HEADER_BYTES + HEAD_BYTES + len(_encode((method, (*arguments, b""))))
    return (*arguments, bytes(FULL_CALL - length))


def room(call_bytes: int) -> int:
    """How many bytes of msgpack may answer a call whose datagram has `call_bytes`, however its source was spoofed."""
    return min(MAX_DATAGRAM, AMPLIFICATION * call_bytes - PING_BYTES) - HEADER_BYTES - HEAD_BYTES


def encode(answer: object) -> bytes:
    """An answer as msgpack."""
    return _encode(answer)


def decode_call(body: bytes) -> tuple[str, tuple[Any, ...]]:
    """The name and the checked arguments of a call; PeerFault if there is no such call."""
    method, arguments = decode(body, _call)
    return method, decode(bytes(arguments), _arguments[method])


def decode(body: bytes, using: msgspec.msgpack.Decoder[T]) -> T:
    """`body` as what `using` expects; PeerFault if it is something else."""
    try:
        return using.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerFault(f"a malformed datagram: {error}") from error
