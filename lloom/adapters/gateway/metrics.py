"""What /metrics tells of the gateway, in a registry of its own. It never sees a prompt, an answer or a key."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from lloom.core.messages import Done

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counters of one gateway. Other parts of the node may add theirs to `registry`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self._requests = Counter("lloom_http_requests", "Answered HTTP requests", ["path", "status"], registry=registry)
        self._seconds = Histogram(
            "lloom_http_request_seconds", "From request to end of answer", ["path"], registry=registry, buckets=_SECONDS
        )
        self._first = Histogram(
            "lloom_first_token_seconds", "From request to first content", registry=registry, buckets=_SECONDS
        )
        self._running = Gauge("lloom_requests_running", "Requests to models that are being answered", registry=registry)
        tokens = Counter("lloom_tokens", "Tokens of completed answers", ["direction"], registry=registry)
        self._input, self._output = tokens.labels("input"), tokens.labels("output")
        self._kept: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        """The time series of a path and a status: looking them up takes longer than adding to them."""

    def answered(self, path: str, status: int, seconds: float) -> None:
        """An exchange is over; `path` must be a route's, not a caller's: each makes a time series."""
        kept = self._kept.get((path, status))
        if kept is None:
            kept = self._kept[path, status] = self._requests.labels(path, str(status)), self._seconds.labels(path)
        kept[0].inc()
        kept[1].observe(seconds)

    def first_token(self, seconds: float) -> None:
        """The first content came after `seconds`."""
        self._first.observe(seconds)

    def tokens(self, done: Done) -> None:
        """An answer came to its end."""
        self._input.inc(done.input_tokens)
        self._output.inc(done.output_tokens)

    def running(self) -> AbstractContextManager[None]:
        """While it lasts, a request to a model is being answered."""
        return self._running.track_inprogress()

    def text(self) -> bytes:
        """All of it, in the format of Prometheus."""
        return generate_latest(self.registry)
