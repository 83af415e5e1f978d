"""A node's state in the format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from lloom.adapters import figures
from lloom.adapters.dht.node import DhtStatus
from lloom.adapters.dht.seeds import Seed
from lloom.adapters.figures import COUNTERS, GAUGES, Figures

STATUS = DhtStatus(
    peers=7,
    records=3,
    problem=None,
    rejected=2,
    lookups=5,
    lookup_p50=0.01,
    lookup_p99=0.2,
    observed="192.0.2.1",
    clock_offset=None,
    clocks=(0.1,),
    estimated_size=40,
    crowded=1,
    bootstrap=(Seed("a:1", None, None, 0.1), Seed("b:1", None, "nobody answers", None)),
)


def shown(figures: Figures) -> str:
    registry = CollectorRegistry()
    registry.register(figures)
    return generate_latest(registry).decode()


def test_what_is_shown_is_what_is_there_when_somebody_asks() -> None:
    values = {"dht_peers": 1.0}
    collector = Figures(lambda: values)
    assert "\nlloom_dht_peers 1.0\n" in shown(collector)
    values["dht_peers"] = 2.0
    assert "\nlloom_dht_peers 2.0\n" in shown(collector)


def test_a_clock_that_serves_is_off_by_nothing_and_dead_validators_are_not_counted_as_answering() -> None:
    text = shown(Figures(lambda: figures.dht(STATUS)))
    for line in (
        "lloom_dht_estimated_nodes 40.0",
        "lloom_dht_lookups_total 5.0",
        "lloom_dht_crowded_lookups_total 1.0",
        "lloom_clock_offset_seconds 0.0",
        "lloom_bootstrap_configured 2.0",
        "lloom_bootstrap_answering 1.0",
    ):
        assert f"\n{line}\n" in text


def test_every_number_has_a_meaning_and_only_one_kind() -> None:
    assert figures.dht(STATUS).keys() <= GAUGES.keys() | COUNTERS.keys()
    assert not GAUGES.keys() & COUNTERS.keys()
