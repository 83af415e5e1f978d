"""Estimates that fade, and how sure they are. They never read a clock."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

_LATEST: Final = 64


def faded(age: float, memory: float) -> float:
    """The weight of what is `age` seconds old, where `memory` seconds halve it."""
    return math.exp2(-max(0.0, age) / memory)


def wilson(good: float, bad: float, deviations: float) -> float:
    """The lower bound of the share of good ones among all that will be, so many standard deviations below the mean; 0 where
    nothing is known.

    With one deviation, one good of one says little (0.5), a hundred of a hundred much (0.99). Wilson, Probable Inference, JASA
    22 (1927).
    """
    count = good + bad
    if count <= 0:
        return 0.0
    square = deviations * deviations
    margin = deviations * math.sqrt(good * bad / count + square / 4)
    return max(0.0, (good + square / 2 - margin) / (count + square))


@dataclass(slots=True)
class Ratio:
    """A sum over another one, both fading: a mean, a share, a rate."""

    above: float = 0.0
    below: float = 0.0

    def add(self, above: float, below: float) -> None:
        """One more observation."""
        self.above += above
        self.below += below

    def fade(self, factor: float) -> None:
        """Time has passed."""
        self.above *= factor
        self.below *= factor

    @property
    def value(self) -> float | None:
        """None while nothing was observed."""
        return self.above / self.below if self.below > 0 else None


@dataclass(slots=True)
class Latest:
    """The latest observations, for quantiles."""

    _seen: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_LATEST))

    def add(self, value: float, now: float) -> None:
        """One more."""
        self._seen.append((now, value))

    def quantile(self, share: float, since: float, least: int) -> float | None:
        """The value that `share` of those since then do not exceed; None if there are fewer than `least`."""
        values = sorted(value for at, value in self._seen if at >= since)
        return values[min(len(values) - 1, math.ceil(share * len(values)) - 1)] if len(values) >= least else None
