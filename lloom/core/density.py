"""Whether ids crowd around a key more than chance explains: somebody ground them to surround it. It measures nothing itself.

Ids of honest nodes are hashes of keys, so they lie evenly: of `size` nodes, the number within a distance d of a key is
binomial, nearly Poisson with mean size · d / 2^160. See Cholez et al., "Detection and
mitigation of localized attacks in a widely deployed P2P network" (2013), for the same idea against Sybils in KAD.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

SPACE: Final = 1 << 160
FEWEST: Final = 4
"""Fewer ids near a key say nothing."""
MARGIN: Final = 2.0
"""Sizes are estimates: by so much the true one may be larger."""
UNLIKELY: Final = 1e-5
"""One false alarm in so many lookups, at most."""


def size(distances: Sequence[int]) -> float:
    """How many nodes there are, judged by the sorted distances of those nearest to a point that nobody chose.

    Of n ids the j-th nearest lies about j / (n + 1) of the space away; the farthest of them errs least.
    """
    if not distances:
        return 0.0
    return max(float(len(distances)), len(distances) * SPACE / (distances[-1] + 1) - 1)


def crowded(distances: Sequence[int], size: float) -> bool:
    """True if ids as near to a key as the sorted `distances` say are too unlikely in a network of `size` nodes."""
    if size < 2 * FEWEST:
        return False
    return any(
        _chance(count, MARGIN * size * (distance + 1) / SPACE) < UNLIKELY
        for count, distance in enumerate(distances, start=1)
        if count >= FEWEST
    )


def _chance(count: int, mean: float) -> float:
    """An upper bound of the chance that a Poisson number of this mean is `count` or more (Chernoff)."""
    if mean >= count:
        return 1.0
    return math.exp(count - mean + count * math.log(mean / count))
