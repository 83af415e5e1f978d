"""Where strangers are sent, by what is configured and what validators found."""

from __future__ import annotations

import pytest

from lloom.core.offer import Endpoint
from lloom.core.reachability import Reachability
from lloom.core.roster import Roster

HERE, THERE = Endpoint("192.0.2.1", 9000), Endpoint("192.0.2.1", 9001)
RELAY = Endpoint("198.51.100.1", 9000, bytes(20))
PORTS = frozenset({9000, 9001})
NOWHERE: frozenset[int] = frozenset()


def roster(*endpoints: Endpoint, relays: tuple[Endpoint, ...] = ()) -> Roster:
    found = Roster(patience=10)
    for number, each in enumerate(endpoints):
        found.enlist(str(number), each, (), now=0)
        found.relayed(str(number), relays)
    return found


def everywhere(port: int, host: str = "0.0.0.0") -> Endpoint:
    return Endpoint(host, port)


def test_a_known_address_is_good_until_validators_say_otherwise() -> None:
    reach, workers = Reachability("auto", "192.0.2.1"), roster(HERE, THERE, relays=(RELAY,))
    assert (reach.dialled, reach.direct(9000), reach.ways(workers)) == (True, True, (HERE, THERE))
    assert not reach.found(PORTS, PORTS, "203.0.113.9"), "what is configured wins"
    assert reach.found(frozenset({9001}), PORTS, None)
    assert (reach.direct(9000), reach.direct(9001)) == (False, True)
    assert reach.ways(workers) == (THERE, RELAY)
    assert reach.found(NOWHERE, PORTS, None)
    assert (reach.dialled, reach.ways(workers)) == (False, (RELAY,))
    assert not reach.found(NOWHERE, PORTS, None)
    assert reach.found(PORTS, PORTS, None)
    assert (reach.dialled, reach.ways(workers)) == (True, (HERE, THERE))


def test_as_long_as_no_relay_is_held_the_direct_way_is_tried() -> None:
    reach = Reachability("auto", "192.0.2.1")
    reach.found(NOWHERE, PORTS, None)
    assert reach.ways(roster(HERE)) == (HERE,)


def test_who_hides_names_relays_only() -> None:
    reach = Reachability("only", "192.0.2.1")
    assert (reach.hidden, reach.dialled, reach.direct(9000)) == (True, False, False)
    assert reach.ways(roster(HERE)) == ()
    assert reach.ways(roster(HERE, relays=(RELAY,))) == (RELAY,)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_that_is_not_known_is_learnt(host: str) -> None:
    reach = Reachability("auto", host)
    here, there = everywhere(9000, host), everywhere(9001, host)
    assert (reach.dialled, reach.direct(9000), reach.ways(roster(here, there))) == (False, False, ())
    assert reach.ways(roster(here, relays=(RELAY,))) == (RELAY,)
    assert reach.found(PORTS, PORTS, "203.0.113.9")
    assert (reach.dialled, reach.direct(9000)) == (True, True)
    assert reach.ways(roster(here, there)) == (Endpoint("203.0.113.9", 9000), Endpoint("203.0.113.9", 9001))
    assert reach.found(PORTS, PORTS, "203.0.113.10"), "it moved"
    assert reach.ways(roster(here)) == (Endpoint("203.0.113.10", 9000),)
    assert not reach.found(PORTS, PORTS, None), "nobody says where now: as before"


def test_reached_at_an_address_that_makes_no_sense_is_not_reached() -> None:
    reach = Reachability("auto", "0.0.0.0")
    reach.found(PORTS, PORTS, None)
    assert reach.ways(roster(everywhere(9000))) == ()
    assert reach.ways(roster(everywhere(9000), relays=(RELAY,))) == (RELAY,)
