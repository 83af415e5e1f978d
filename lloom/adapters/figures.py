"""The state of a node in numbers, for Prometheus. It keeps none: each is read when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lloom.adapters.dht.node import DhtStatus

GAUGES: Final = {
    "dht_peers": "Nodes in the routing table",
    "dht_records": "Records held for others",
    "dht_estimated_nodes": "Nodes in the network, as far as can be told",
    "dht_lookup_p50_seconds": "Median of the latest lookups",
    "dht_lookup_p99_seconds": "99th percentile of the latest lookups",
    "dht_in_network": "1 if some node of the network answers",
    "clock_offset_seconds": "By how much this clock is behind the network's; 0 while it serves",
    "bootstrap_configured": "Validators of the configuration",
    "bootstrap_answering": "Those of them that answered the last time",
    "bridge_dialled": "Open connections that this node made",
    "bridge_accepted": "Open connections that others made",
    "validators_dropped": "Validators that misled this client and are not asked now",
    "lanes_open": "Executors that this client has paid since it was started",
    "lanes_disputed": "Receipts on these lanes that were not accepted, the latest ones",
    "catalogue_executors": "Executors in the catalogue",
    "catalogue_models": "Models that they offer",
    "catalogue_workers": "Their workers",
    "catalogue_vouched": "Executors for whom some validator vouches",
    "catalogue_relayed": "Executors that are reached through relays only",
    "executors_suspected": "Executors whose answers this validator suspects to be dishonest",
    "relay_workers": "Workers that this validator relays to",
    "relay_connections": "Connections that it relays now",
    "executor_workers": "Workers that are offered now",
    "executor_models": "Models that are offered now",
}
COUNTERS: Final = {
    "dht_lookups": "Lookups so far",
    "dht_rejected": "Malformed datagrams and invalid records so far",
    "dht_crowded_lookups": "Lookups whose key was crowded by ids, more than chance explains",
}

Read = Callable[[], Mapping[str, float]]


class Figures(Collector):
    """What `read` gives, by names of GAUGES and COUNTERS. Register it with a registry."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """The numbers of now."""
        for name, value in self._read().items():
            if name in COUNTERS:
                yield CounterMetricFamily(f"lloom_{name}", COUNTERS[name], value=value)
            else:
                yield GaugeMetricFamily(f"lloom_{name}", GAUGES[name], value=value)


def dht(status: DhtStatus) -> dict[str, float]:
    """The part that every node has."""
    return {
        "dht_peers": status.peers,
        "dht_records": status.records,
        "dht_estimated_nodes": status.estimated_size,
        "dht_lookups": status.lookups,
        "dht_lookup_p50_seconds": status.lookup_p50,
        "dht_lookup_p99_seconds": status.lookup_p99,
        "dht_rejected": status.rejected,
        "dht_crowded_lookups": status.crowded,
        "dht_in_network": float(status.peers > 0),
        "clock_offset_seconds": status.clock_offset or 0.0,
        "bootstrap_configured": len(status.bootstrap),
        "bootstrap_answering": sum(seed.problem is None for seed in status.bootstrap),
    }
