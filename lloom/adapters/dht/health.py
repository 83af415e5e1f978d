"""How peers answered so far: round trips, strikes, back-off, and the timeouts that follow. It never sends or reads a clock."""

from __future__ import annotations

import statistics
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from kademlia.node import Node

# Peers remembered; the ones unheard of for longest are forgotten first.
MEMORY: Final = 4096
# Round trips the median is taken over.
WINDOW: Final = 64
# A slow answer within a few usual round trips is still worth waiting for; below this it is only a busy event loop.
PATIENCE: Final = 4
MIN_TIMEOUT: Final = 0.25
# A query older than a few usual round trips should not hold up others.
HEDGE: Final = 3
MIN_HEDGE: Final = 0.03
# One lost datagram is no death.
STRIKES: Final = 2
FIRST_REST: Final = 1.0
LONGEST_REST: Final = 300.0
# Whoever named so many silent nodes since the last one that answered invents them, or knows nobody any more.
IN_VAIN: Final = 4

Home = tuple[bytes, str, int]
"""Who at which address: a liar may name a wrong one for somebody, and must not hide it at the right one."""


@dataclass(slots=True)
class _Peer:
    rtt: float | None = None
    strikes: int = 0
    rest: float = FIRST_REST
    rests_until: float = 0.0


class Health:
    """The record of all peers, each an id *at an address*. Times are in seconds on one monotonic clock."""

    def __init__(self, longest_timeout: float, longest_hedge: float) -> None:
        self._longest_timeout = longest_timeout
        self._longest_hedge = longest_hedge
        self._peers: OrderedDict[Home, _Peer] = OrderedDict()
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._vain: OrderedDict[bytes, int] = OrderedDict()

    def answered(self, peer: Node, seconds: float) -> None:
        """`peer` answered after `seconds`: its strikes are forgiven."""
        rtt = self._peer(peer).rtt
        self._peers[home(peer)] = _Peer(rtt=seconds if rtt is None else 0.7 * rtt + 0.3 * seconds)
        self._recent.append(seconds)

    def missed(self, peer: Node, now: float) -> bool:
        """`peer` did not answer, or answered nonsense. True if it should leave the routing table."""
        state = self._peer(peer)
        state.strikes += 1
        state.rests_until = now + state.rest
        state.rest = min(2 * state.rest, LONGEST_REST)
        return state.strikes >= STRIKES

    def resting(self, peer: Node, now: float) -> bool:
        """True while `peer` is not worth asking, after it failed to answer."""
        state = self._peers.get(home(peer))
        return state is not None and now < state.rests_until

    def named(self, who: bytes, *, answered: bool) -> None:
        """A node that `who` named in a lookup answered, or was silent."""
        vain = self._vain.pop(who, 0)
        if not answered:
            self._vain[who] = vain + 1
            if len(self._vain) > MEMORY:
                self._vain.popitem(last=False)

    def invents(self, who: bytes) -> bool:
        """True if the nodes that `who` names lately are all silent: they are worth asking only if somebody else names them."""
        return self._vain.get(who, 0) >= IN_VAIN

    def timeout(self, peer: Node | None) -> float:
        """How long to wait for an answer of `peer` (None: of somebody unknown)."""
        state = self._peers.get(home(peer)) if peer is not None else None
        usual = state.rtt if state is not None and state.rtt is not None else self._median()
        if usual is None:
            return self._longest_timeout
        return min(self._longest_timeout, max(MIN_TIMEOUT, PATIENCE * usual))

    def hedge(self) -> float:
        """The age at which an unanswered query gives up its slot to the next."""
        usual = self._median()
        return self._longest_hedge if usual is None else min(self._longest_hedge, max(MIN_HEDGE, HEDGE * usual))

    def _median(self) -> float | None:
        return statistics.median(self._recent) if self._recent else None

    def _peer(self, peer: Node) -> _Peer:
        where = home(peer)
        state = self._peers.setdefault(where, _Peer())
        self._peers.move_to_end(where)
        if len(self._peers) > MEMORY:
            self._peers.popitem(last=False)
        return state


def home(peer: Node) -> Home:
    """Who, and where."""
    return peer.id, peer.ip, peer.port
