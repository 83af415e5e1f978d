"""Which executor has the beginning of a prompt in its cache, most likely. It remembers nothing: a hash says it.

Rendezvous hashing (Thaler and Ravishankar, Using Name-Based Mappings to Increase Hit Rates, 1998): if somebody leaves or comes,
only its own keys move. Bounded loads: Mirrokni, Thorup, Zadimoghaddam, Consistent Hashing with Bounded Loads, 2018.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Final

from lloom.core.routing.candidate import Candidate, Entrant

BOUND: Final = 1.25
"""Times the average load that one may carry for the sake of its cache."""


def preferred(key: bytes, among: Sequence[Entrant]) -> Entrant:
    """The first in the order of `key` that is not loaded more than others, of at least one."""
    places = sum(each.candidate.terms.parallel for each in among)
    share = BOUND * (1 + sum(each.standing.load for each in among)) / places

    def bound(parallel: int) -> int:
        # Half of its places are there to be used, however little there is to do.
        return max(math.ceil(share * parallel), parallel // 2)

    # All bounds together are more than there is to do.
    free = [each for each in among if each.standing.load < bound(each.candidate.terms.parallel)]
    return max(free, key=lambda each: weight(key, each.candidate))


def weight(key: bytes, candidate: Candidate) -> bytes:
    """Whoever has the greatest one is the first for `key`; the same on every machine."""
    executor, endpoint, model = candidate.place
    name = b"%s %s:%d %d %s" % (executor, endpoint.host.encode(), endpoint.port, endpoint.worker, model.encode())
    return hashlib.blake2b(name, key=key[: hashlib.blake2b.MAX_KEY_SIZE], digest_size=8).digest()


def fraction(key: bytes) -> float:
    """A number from 0 to 1 that is the same for the same key, which is a hash of at least eight bytes."""
    return int.from_bytes(key[:8]) / 2**64
