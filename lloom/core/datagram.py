"""A sealed datagram: who sent it, when, to whom, and that nobody changed it. It never sends, receives or reads a clock.

    "Ll", version, flags (1 byte), network tag (4), sender (20), time in ms (8), signature (65) ‖ message

The signature covers flags ‖ sender ‖ time ‖ recipient ‖ message. The recipient costs no bytes, for whoever opens a datagram
puts in itself: what was made for one node is worth nothing at another. A greeting is for whoever is there: its recipient is
20 zero bytes. The tag keeps networks apart that meet on one host or by a wrong address, before any signature is checked.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from lloom.core.errors import PeerFault
from lloom.core.identity import ADDRESS_BYTES, SIGNATURE_BYTES, Identity, NodeId, verify

MAGIC: Final = b"Ll\x02"
TAG_BYTES: Final = 4
TIME_BYTES: Final = 8
HEADER_BYTES: Final = len(MAGIC) + 1 + TAG_BYTES + ADDRESS_BYTES + TIME_BYTES + SIGNATURE_BYTES
_TAG: Final = len(MAGIC) + 1
_SENDER: Final = _TAG + TAG_BYTES
_TIME: Final = _SENDER + ADDRESS_BYTES
_SIGNATURE: Final = _TIME + TIME_BYTES

# The sender wants to be in no routing table.
CLIENT: Final = 1
# The sender does not know whom it greets.
GREETING: Final = 2
NOBODY: Final = NodeId(bytes(ADDRESS_BYTES))


class Sealed(NamedTuple):
    """A datagram whose form was checked and whose signature was not (see `check`). `time`: Unix seconds by the sender's clock."""

    flags: int
    sender: NodeId
    time: float
    signature: bytes
    signed: bytes
    """What stands in the datagram of that which the signature covers, before the recipient."""
    message: bytes


def tag(network: str) -> bytes:
    """The tag of the network named so."""
    return hashlib.sha256(b"lloom dht " + network.encode()).digest()[:TAG_BYTES]


def seal(
    message: bytes, identity: Identity, network: str, *, recipient: NodeId | None, client: bool, now: float
) -> bytes:
    """`message` as a datagram of `identity`, sent at `now` (Unix seconds). `recipient`: None makes it a greeting."""
    flags = bytes([CLIENT * client | GREETING * (recipient is None)])
    stamp = identity.address + int(now * 1000).to_bytes(TIME_BYTES, "big")
    signature = identity.sign("datagram", network, flags + stamp + (recipient or NOBODY) + message)
    return MAGIC + flags + tag(network) + stamp + signature + message


def unseal(datagram: bytes, tag: bytes) -> Sealed:
    """The parts of `datagram`; PeerFault if it is none of the network with this tag."""
    if datagram[: len(MAGIC)] != MAGIC or datagram[_TAG:_SENDER] != tag or len(datagram) < HEADER_BYTES:
        raise PeerFault("a datagram of another network")
    flags = datagram[len(MAGIC)]
    if flags & ~(CLIENT | GREETING):
        raise PeerFault("a datagram with unknown flags")
    return Sealed(
        flags,
        NodeId(datagram[_SENDER:_TIME]),
        int.from_bytes(datagram[_TIME:_SIGNATURE], "big") / 1000,
        datagram[_SIGNATURE:HEADER_BYTES],
        datagram[len(MAGIC) : _TAG] + datagram[_SENDER:_SIGNATURE],
        datagram[HEADER_BYTES:],
    )


def check(sealed: Sealed, network: str, recipient: NodeId) -> None:
    """PeerFault unless its sender signed `sealed` as it is, for `recipient` or as a greeting."""
    meant = NOBODY if sealed.flags & GREETING else recipient
    verify("datagram", network, sealed.signed + meant + sealed.message, sealed.signature, sealed.sender)


class Replays:
    """Which calls were seen lately, in bounded memory. Forgets no call while its time is valid, unless `limit` others came since.

    Two generations: the older is dropped when the younger is as old as a time is valid, or full.
    """

    def __init__(self, lifetime: float, limit: int) -> None:
        """`lifetime`: seconds for which a datagram can be valid, from its arrival on."""
        self._lifetime = lifetime
        self._limit = limit
        self._young: set[int] = set()
        self._old: set[int] = set()
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def seen(self, sender: NodeId, message_id: bytes, now: float) -> bool:
        """True if this call came before; remembers it. `now`: seconds on a monotonic clock."""
        if len(self._young) >= self._limit or now - self._since >= self._lifetime:
            stale = now - self._since >= 2 * self._lifetime
            self._old, self._young, self._since = (set() if stale else self._young), set(), now
        # Python's hash is keyed by a secret of this process: nobody can make two calls that collide.
        call = hash((sender, message_id))
        if call in self._young or call in self._old:
            return True
        self._young.add(call)
        return False
