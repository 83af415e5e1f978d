"""What the policies make of twenty executors that differ in price, speed and reliability, over thousands of requests.

`pytest -s` prints the shares.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest

from lloom.core.routing.candidate import Candidate, Choice
from lloom.core.routing.outcomes import Failure, Outcomes, Place
from lloom.core.routing.rules import Rules
from lloom.core.routing.selection import Selection
from lloom.core.settings import Policy
from tests.unit.core.routing.test_selection import candidate, request

TOKENS = 200
ATTEMPTS = 3
ASKED = request()


@dataclass
class Seller:
    """An executor: seconds to its first token, tokens a second, share of requests that fail."""

    number: int
    price: int = 10
    wait: float = 0.5
    rate: float = 50.0
    failing: float = 0.0
    silent: bool = False
    offer: Candidate = field(init=False)

    def __post_init__(self) -> None:
        self.offer = candidate(self.number, parallel=16, input_price=self.price, output_price=self.price)

    @property
    def seconds(self) -> float:
        return self.wait + TOKENS / self.rate


class Market:
    """Requests that come every `pause` seconds; what each executor does is drawn from a seeded generator."""

    def __init__(self, policy: Policy, sellers: list[Seller], pause: float = 0.2) -> None:
        rules = Rules(policy, pinned=tuple(each.offer.executor for each in sellers[:2]), explore=0.25, reputation=0.67)
        self.selection = Selection(rules, Outcomes(memory=600.0, rest=5.0))
        self.sellers = {each.offer.executor: each for each in sellers}
        self.pause = pause
        self.now = 0.0
        self.rng = Random(11)
        self.unserved = 0
        self._served = 0
        self._ends: list[tuple[float, int, Place]] = []

    def run(self, requests: int) -> Counter[int]:
        """How many requests were sent to whom."""
        sent: Counter[int] = Counter()
        for _ in range(requests):
            self.now += self.pause
            self._end(self.now)
            sent.update(self._ask())
        return sent

    def _ask(self) -> list[int]:
        tried: list[Place] = []
        offers = [each.offer for each in self.sellers.values()]
        while len(tried) < ATTEMPTS:
            chosen = self.selection.choose(offers, ASKED, tried, self.now, self.rng)
            if not isinstance(chosen, Choice):
                break
            place = chosen.candidate.place
            tried.append(place)
            if self._serve(self.sellers[place[0]], place):
                return [self.sellers[executor].number for executor, _, _ in tried]
        self.unserved += 1
        return [self.sellers[executor].number for executor, _, _ in tried]

    def _serve(self, seller: Seller, place: Place) -> bool:
        outcomes = self.selection.outcomes
        outcomes.began(place)
        good = not seller.silent and self.rng.random() >= seller.failing
        if good:
            outcomes.answered(place, seller.wait * self.rng.uniform(0.8, 1.2), self.now)
            self._served += 1
            heapq.heappush(self._ends, (self.now + seller.seconds, self._served, place))
        else:
            outcomes.failed(place, self.now, Failure.SILENT if seller.silent else Failure.REFUSED, None)
            outcomes.ended(place)
        return good

    def _end(self, until: float) -> None:
        outcomes = self.selection.outcomes
        while self._ends and self._ends[0][0] <= until:
            at, _, place = heapq.heappop(self._ends)
            seller = self.sellers[place[0]]
            if seller.silent:
                outcomes.failed(place, at, Failure.SILENT, None)
                outcomes.ended(place)
                continue
            outcomes.succeeded(place, at, TOKENS, TOKENS / seller.rate)
            outcomes.ended(place)


def varied() -> list[Seller]:
    """Cheap and slow (0 to 4), dear and fast (to 9), average (to 14), average and failing a third of the time (to 19)."""
    return [
        *(Seller(number, price=2 + number, wait=1.5, rate=15) for number in range(5)),
        *(Seller(number, price=40, wait=0.1 + number / 100, rate=120) for number in range(5, 10)),
        *(Seller(number) for number in range(10, 15)),
        *(Seller(number, failing=0.33) for number in range(15, 20)),
    ]


def groups(sent: Counter[int]) -> dict[str, float]:
    names = ("cheap", "fast", "average", "failing")
    whole = sent.total()
    shares = {name: sum(sent[number] for number in range(5 * at, 5 * at + 5)) / whole for at, name in enumerate(names)}
    print({name: round(share, 2) for name, share in shares.items()})
    return shares


def later(policy: Policy) -> tuple[Market, Counter[int]]:
    """Two thousand requests, after two thousand in which all became known."""
    market = Market(policy, varied(), pause=2.0)
    market.run(2000)
    return market, market.run(2000)


def test_cheapest_asks_the_cheapest() -> None:
    _, sent = later("cheapest")
    shares = groups(sent)
    assert shares["cheap"] > 0.9
    assert sent[0] > 0.5 * sent.total()


def test_fastest_asks_the_fast() -> None:
    assert groups(later("fastest")[1])["fast"] > 0.75


def test_pinned_asks_nobody_else() -> None:
    _, sent = later("pinned")
    assert set(sent) <= {0, 1}
    assert sent[0] > sent[1]


def test_balanced_spreads_over_the_good_and_spares_those_that_fail() -> None:
    market, sent = later("balanced")
    shares = groups(sent)
    assert shares["failing"] < 0.5 * shares["average"]
    assert min(shares["cheap"], shares["fast"], shares["average"]) > 0.1
    assert max(sent.values()) < 0.2 * sent.total(), "no herd"
    assert market.unserved == 0


@pytest.mark.parametrize("policy", ["balanced", "cheapest", "fastest"])
def test_one_that_dies_loses_its_share_at_once(policy: Policy) -> None:
    market = Market(policy, varied())
    favourite, _ = market.run(2000).most_common(1)[0]
    dying = next(each for each in market.sellers.values() if each.number == favourite)
    dying.silent = True
    sent = market.run(500)
    print(policy, "asked", sent[favourite], "times after its death")
    assert sent[favourite] <= 5
    assert market.unserved == 0


@pytest.mark.parametrize("policy", ["balanced", "cheapest", "fastest"])
def test_a_newcomer_that_is_better_has_its_trial_soon_and_then_its_share(policy: Policy) -> None:
    market = Market(policy, varied())
    market.run(2000)
    market.sellers[candidate(99).executor] = Seller(99, price=1, wait=0.05, rate=200)
    trial, then = market.run(200)[99], market.run(500)[99]
    print(policy, "newcomer:", trial, "of 200, then", then, "of 500")
    assert trial >= 8
    assert then > 500 / 21


def test_a_newcomer_like_others_gets_a_trial_and_no_more_than_its_share() -> None:
    market = Market("balanced", [Seller(number) for number in range(20)])
    market.run(4000)
    market.sellers[candidate(99).executor] = Seller(99)
    trial, then = market.run(200)[99], market.run(2000)[99]
    print("newcomer:", trial, "of 200, then", then, "of 2000")
    assert 8 <= trial <= 60
    assert 30 <= then <= 250


def flooded(silent: bool) -> Callable[[], Counter[int]]:
    market = Market("balanced", [Seller(number) for number in range(5)])
    market.run(1000)
    for number in range(100, 250):
        market.sellers[candidate(number).executor] = Seller(number, price=1, silent=silent)
    return lambda: market.run(500)


def test_a_flood_of_identities_that_are_nobody_is_soon_ignored() -> None:
    run = flooded(silent=True)
    first, second = run(), run()
    wasted = [sum(count for number, count in sent.items() if number >= 100) for sent in (first, second)]
    print("requests that tried nobody:", wasted, "of 500 each")
    assert wasted[0] < 60
    assert wasted[1] < 25


def test_who_is_last_of_many_equals_is_asked_like_the_others() -> None:
    market = Market("balanced", [Seller(number, wait=0.5 + number / 100) for number in range(20)], pause=5.0)
    market.run(500)
    sent = market.run(1000)
    print("of 1000 requests, each of twenty equals had", sorted(sent.values()))
    assert min(sent[number] for number in range(20)) > 10
    assert max(sent.values()) < 90
