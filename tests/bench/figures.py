"""What the samples of all rounds amount to: figures by system, and how they stand to the budgets. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.bench.load import Sample


@dataclass(frozen=True)
class Load:
    """One way to load a system."""

    name: str
    stream: bool
    clients: int
    tokens: int


PLAIN = Load("plain, 1 client", False, 1, 16)
PLAIN_16 = Load("plain, 16 clients", False, 16, 16)
STREAM = Load("stream, 1 client", True, 1, 100)
STREAM_8 = Load("stream, 8 clients", True, 8, 100)
LOADS = (PLAIN, PLAIN_16, STREAM, STREAM_8)

Round = Mapping[tuple[str, str], Sample]
"""The samples of one round, by the names of system and load."""


@dataclass(frozen=True)
class Figure:
    """One number of one load. `of` takes it from a sample."""

    name: str
    unit: str
    load: Load
    of: Callable[[Sample], float]


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of `values` lie."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _chunks(sample: Sample) -> float:
    return sample.chunks / sample.seconds


def _rate(sample: Sample) -> float:
    return len(sample.times) / sample.seconds


LATENCY = Figure("latency p50", "ms", PLAIN, lambda sample: statistics.median(sample.times))
RATE_16 = Figure("requests, 16 clients", "/s", PLAIN_16, _rate)
FIRST = Figure("first token p50", "ms", STREAM, lambda sample: statistics.median(sample.first))
CHUNKS = Figure("chunks, 1 stream", "/s", STREAM, _chunks)

FIGURES = (
    LATENCY,
    Figure("latency p95", "ms", PLAIN, lambda sample: quantile(sample.times, 0.95)),
    Figure("requests, 1 client", "/s", PLAIN, _rate),
    RATE_16,
    FIRST,
    Figure("first token p95", "ms", STREAM, lambda sample: quantile(sample.first, 0.95)),
    Figure("whole stream p50", "ms", STREAM, lambda sample: statistics.median(sample.times)),
    CHUNKS,
    Figure("chunks, 8 streams", "/s", STREAM_8, _chunks),
)


def values(figure: Figure, system: str, rounds: Sequence[Round]) -> list[float]:
    """The figure of a system, round by round."""
    return [figure.of(each[system, figure.load.name]) for each in rounds]


@dataclass(frozen=True)
class Budget:
    """A promise: `better` and `than` are the systems compared within each round, by ratio or (`added`) by difference."""

    name: str
    figure: Figure
    system: str
    than: str
    added: bool
    bound: float

    def each(self, rounds: Sequence[Round]) -> list[float]:
        """What it is, round by round."""
        pairs = zip(values(self.figure, self.system, rounds), values(self.figure, self.than, rounds), strict=True)
        return [ours - theirs if self.added else ours / theirs for ours, theirs in pairs]

    def met(self, value: float) -> bool:
        """Whether the promise is kept: at most so much is added, at least so many times as many are done."""
        return value <= self.bound if self.added else value >= self.bound


BUDGETS = tuple(
    budget
    for name in ("Lloom", "Lloom, paid")
    for budget in (
        Budget(f"{name}: latency added, p50", LATENCY, name, "mock alone", True, 5),
        Budget(f"{name}: first token added, p50", FIRST, name, "mock alone", True, 6),
        Budget(f"{name}: requests, 16 clients", RATE_16, name, "LiteLLM proxy", False, 8),
        Budget(f"{name}: chunks, 1 stream", CHUNKS, name, "LiteLLM proxy", False, 10),
    )
)
