"""Routing in numbers, for Prometheus. It keeps none: each is read when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lloom.adapters.routing.waiting import Waiting
from lloom.core.reputation.evidence import Kind
from lloom.core.reputation.reputations import STANDINGS
from lloom.core.routing.breaker import State
from lloom.core.routing.outcomes import Failure
from lloom.core.routing.plans import Plans


class RoutingFigures(Collector):
    """Register it with a registry. `clock`: as in `Outcomes`."""

    def __init__(self, plans: Plans, waiting: Waiting, clock: Callable[[], float]) -> None:
        self._plans = plans
        self._waiting = waiting
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """The numbers of now."""
        outcomes = self._plans.outcomes
        yield CounterMetricFamily("lloom_attempts", "Requests sent to some executor", value=outcomes.attempts)
        failures = CounterMetricFamily("lloom_attempt_failures", "Those that failed, by how", labels=["kind"])
        for how in Failure:
            failures.add_metric([how.name.lower()], outcomes.failures[how])
        yield failures
        breakers = GaugeMetricFamily("lloom_breakers", "Executors' workers and models, by state", labels=["state"])
        states = outcomes.states(self._clock())
        for state in State:
            breakers.add_metric([state], states[state])
        yield breakers
        yield from self._reputations()
        yield GaugeMetricFamily("lloom_queued", "Requests that wait for an executor", value=len(self._waiting))
        yield CounterMetricFamily("lloom_queue_refused", "Those that waited in vain", value=self._waiting.refused)
        yield CounterMetricFamily(
            "lloom_hedges", "Requests sent to a second executor as well", value=self._plans.hedges
        )

    def _reputations(self) -> Iterator[Metric]:
        """No executor has a series of its own: identities are free."""
        reputations = self._plans.outcomes.reputations
        held = GaugeMetricFamily("lloom_reputations", "Executors, by what is held of them", labels=["standing"])
        standings = reputations.standings(self._clock())
        for standing in STANDINGS:
            held.add_metric([standing], standings[standing])
        yield held
        seen = CounterMetricFamily("lloom_evidence", "What was seen of executors", labels=["kind", "right"])
        for kind in Kind:
            for right in (True, False):
                seen.add_metric([kind.name.lower(), str(right).lower()], reputations.noted[kind, right])
        yield seen
