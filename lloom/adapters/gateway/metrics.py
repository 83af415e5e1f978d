"""What /metrics tells of the gateway. It never sees a prompt, an answer or a key."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from lloom.core.messages import Done

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_BOUNDS: Final = (*map(str, _SECONDS), "+Inf")


class _Times:
    """How often something took at most so long."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * len(_BOUNDS)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect_left(_SECONDS, seconds)] += 1
        self._sum += seconds

    def tell(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        family.add_metric(labels, list(zip(_BOUNDS, accumulate(self._counts), strict=True)), self._sum)


class Metrics(Collector):
    """Numbers of one gateway. Other parts of the node may add theirs to `registry`.

    They are plain ones, since only the event loop counts: the counters of the client library take a lock for each.
    """

    def __init__(self) -> None:
        self.running = 0
        """Requests to models that are being answered; who answers them counts."""
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: defaultdict[str, _Times] = defaultdict(_Times)
        self._first = _Times()
        self._input = self._output = 0
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """An exchange is over; `path` must be a route's, not a caller's: each makes a time series."""
        self._requests[path, status] += 1
        self._seconds[path].add(seconds)

    def first_token(self, seconds: float) -> None:
        """The first content came after `seconds`."""
        self._first.add(seconds)

    def tokens(self, done: Done) -> None:
        """An answer came to its end."""
        self._input += done.input_tokens
        self._output += done.output_tokens

    def collect(self) -> Iterator[Metric]:
        """The numbers of now."""
        requests = CounterMetricFamily("lloom_http_requests", "Answered HTTP requests", labels=["path", "status"])
        for (path, status), count in self._requests.items():
            requests.add_metric([path, str(status)], count)
        yield requests
        seconds = HistogramMetricFamily("lloom_http_request_seconds", "From request to end of answer", labels=["path"])
        for path, times in self._seconds.items():
            times.tell(seconds, [path])
        yield seconds
        first = HistogramMetricFamily("lloom_first_token_seconds", "From request to first content")
        self._first.tell(first, [])
        yield first
        yield GaugeMetricFamily(
            "lloom_requests_running", "Requests to models that are being answered", value=self.running
        )
        tokens = CounterMetricFamily("lloom_tokens", "Tokens of completed answers", labels=["direction"])
        tokens.add_metric(["input"], self._input)
        tokens.add_metric(["output"], self._output)
        yield tokens

    def text(self) -> bytes:
        """All of it, in the format of Prometheus."""
        return generate_latest(self.registry)
