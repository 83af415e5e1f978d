"""The form of every datagram: header, calls, answers, each field with its bounds. It never sends or receives.

datagram = "Ll", version, flags, network tag (4 bytes) ‖ rpcudp's message: 0 (call) or 1 (answer), message id (20 bytes), msgpack.
A call is `[name, arguments]`. The tag keeps networks apart that meet on one host or by a wrong bootstrap address; it proves
nothing. `Envelope` is the place where datagrams can be signed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta, Struct

from lloom.adapters.dht.addresses import Reach, inward
from lloom.core.errors import PeerFault
from lloom.core.records import MAX_RECORD

T = TypeVar("T")

CALL: Final = b"\x00"
ANSWER: Final = b"\x01"
MESSAGE_ID_BYTES: Final = 20
MAGIC: Final = b"Ll\x01"
TAG_BYTES: Final = 4
HEADER_BYTES: Final = len(MAGIC) + 1 + TAG_BYTES
CLIENT_FLAG: Final = 1

# IPv6 guarantees packets of 1,280 bytes; less its header and UDP's.
MAX_DATAGRAM: Final = 1232
# A timestamp and a signature around each datagram must still fit.
SEAL_BYTES: Final = 8 + 65
MAX_ANSWER: Final = MAX_DATAGRAM - SEAL_BYTES - HEADER_BYTES - 1 - MESSAGE_ID_BYTES
# 44 bytes each at worst: of the first kind as many as fit, of the second as many as leave room for records.
MAX_NEIGHBOURS: Final = 20
MAX_NEIGHBOURS_BESIDE_RECORDS: Final = 8
# Around records and neighbours: array heads and the total; and the head of each record.
FOUND_OVERHEAD: Final = 16
RECORD_OVERHEAD: Final = 3

Id = Annotated[bytes, Meta(min_length=20, max_length=20)]
PackedRecord = Annotated[bytes, Meta(max_length=MAX_RECORD)]
PackedHost = Annotated[bytes, Meta(min_length=4, max_length=16)]
Neighbour = tuple[Id, PackedHost, Annotated[int, Meta(ge=1, le=65_535)]]
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
# Every call begins with the caller's node id. find_value ends with the publisher after which the page shall begin.
_arguments: Final[dict[str, msgspec.msgpack.Decoder[Any]]] = {
    "ping": msgspec.msgpack.Decoder(tuple[Id]),
    "store": msgspec.msgpack.Decoder(tuple[Id, Id, PackedRecord]),
    "find_node": msgspec.msgpack.Decoder(tuple[Id, Id]),
    "find_value": msgspec.msgpack.Decoder(tuple[Id, Id, Id]),
}
ping_answer = msgspec.msgpack.Decoder(Id)
store_answer = msgspec.msgpack.Decoder(bool)
find_node_answer = msgspec.msgpack.Decoder(Neighbours)
find_value_answer = msgspec.msgpack.Decoder(Found)


class Sender(NamedTuple):
    """Where a datagram came from; rpcudp hands it through as the address. `client`: it wants to be in no routing table."""

    host: str
    port: int
    client: bool


@dataclass(frozen=True, slots=True)
class Envelope:
    """What surrounds every datagram of one node: its network's tag, whether it is in client mode, whom it may reach."""

    tag: bytes
    reach: Reach
    client: bool

    @classmethod
    def of(cls, network: str, reach: Reach, client: bool) -> Envelope:
        """The envelope of a node of `network` (its name)."""
        tag = hashlib.sha256(b"lloom dht " + network.encode()).digest()[:TAG_BYTES]
        return cls(tag, reach, client)

    def close(self, message: bytes) -> bytes:
        """`message` as it goes over the wire."""
        return MAGIC + bytes([CLIENT_FLAG if self.client else 0]) + self.tag + message

    def open(self, datagram: bytes, address: tuple[Any, ...]) -> tuple[Sender, bytes]:
        """Who sent `datagram`, and the message within; PeerFault if it is not of our network, too long, or from nowhere."""
        message = datagram[HEADER_BYTES:]
        if datagram[:3] != MAGIC or datagram[4:HEADER_BYTES] != self.tag:
            raise PeerFault("a datagram of another network")
        if len(datagram) > MAX_DATAGRAM or len(message) <= 1 + MESSAGE_ID_BYTES:
            raise PeerFault("a datagram of impossible size")
        host, port = inward(address[0]), address[1]
        if not self.reach.accepts(host, port):
            raise PeerFault("a datagram from an address that cannot be answered")
        return Sender(host, port, bool(datagram[3] & CLIENT_FLAG)), message


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
