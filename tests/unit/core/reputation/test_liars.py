"""A client among honest executors, one that turns bad, a ring that vouches for itself, and a validator that lies: who gets asked?

`pytest -s` prints the shares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from lloom.core.identity import NodeId
from lloom.core.reputation.evidence import Kind
from lloom.core.reputation.hearsay import Word, heard
from lloom.core.reputation.reputations import Reputations
from lloom.core.routing.candidate import Candidate, Choice
from lloom.core.routing.outcomes import Failure, Outcomes
from lloom.core.routing.rules import Rules
from lloom.core.routing.selection import Selection
from lloom.core.settings import Policy
from tests.unit.core.routing.test_selection import candidate, request

HONEST, TURNCOAT, RING = range(1, 6), 6, range(10, 30)
VALIDATORS = 3
STEPS = 2000
Behaviour = Callable[[int, int], tuple[bool, bool]]
"""Of an executor at a step: whether it answers, and whether it counts rightly."""


def well(_: int, __: int) -> tuple[bool, bool]:
    return True, True


@dataclass
class World:
    """One request a second."""

    everybody: list[Candidate]
    behaviour: Behaviour = well
    policy: Policy = "balanced"
    reputations: Reputations = field(default_factory=lambda: Reputations(86_400.0))
    rng: Random = field(default_factory=lambda: Random(11))

    def __post_init__(self) -> None:
        rules = Rules(self.policy, explore=0.25, reputation=0.67)
        self.selection = Selection(rules, Outcomes(600.0, 5.0, self.reputations))

    def run(self, steps: int, since: int = 0) -> Counter[int]:
        """How often each was asked, failed first tries included."""
        asked: Counter[int] = Counter()
        for step in range(since, since + steps):
            found = self.selection.choose(self.everybody, request(), (), float(step), self.rng)
            assert isinstance(found, Choice)
            asked[found.candidate.executor[0]] += 1
            self._experience(found.candidate, step)
        return asked

    def _experience(self, chosen: Candidate, step: int) -> None:
        outcomes, now = self.selection.outcomes, float(step)
        answers, counts = self.behaviour(chosen.executor[0], step)
        if not answers:
            outcomes.failed(chosen.place, now, Failure.SILENT, None)
            return
        outcomes.answered(chosen.place, 0.5, now)
        outcomes.succeeded(chosen.place, now, 1, 0.0)
        self.reputations.note(chosen.executor, chosen.terms.id, Kind.COUNT, now, right=counts)


def crowd(numbers: Iterable[int]) -> list[Candidate]:
    return [candidate(number) for number in numbers]


def share(asked: Counter[int], of: Iterable[int]) -> float:
    return sum(asked[number] for number in of) / asked.total()


def told(what: str, **shares: float) -> None:
    print(f"\n{what}:", ", ".join(f"{name} {value:.1%}" for name, value in shares.items()))


def test_one_that_turns_bad_loses_its_requests() -> None:
    world = World(crowd([*HONEST, TURNCOAT]), lambda who, step: (True, who != TURNCOAT or step < STEPS))
    before, soon = world.run(STEPS), world.run(STEPS // 2, since=STEPS)
    later = world.run(STEPS // 2, since=STEPS + STEPS // 2)
    shares = {name: share(asked, [TURNCOAT]) for name, asked in (("before", before), ("soon", soon), ("later", later))}
    told("turns to overcounting", **shares)
    assert shares["before"] > 0.1
    assert shares["soon"] < shares["before"]
    assert shares["later"] < 0.02


def test_the_cheapest_does_not_stay_the_choice_once_it_lies() -> None:
    cheap = candidate(TURNCOAT)
    dear = [candidate(number, output_price=9) for number in HONEST]
    world = World([cheap, *dear], lambda who, _: (True, who != TURNCOAT), policy="cheapest")
    asked = world.run(STEPS)
    told("overcounts, and is the cheapest", liar=share(asked, [TURNCOAT]))
    assert share(asked, [TURNCOAT]) < 0.05


def test_a_ring_that_vouches_for_itself_gets_little() -> None:
    world = World(crowd([*HONEST, *RING]), lambda who, _: (who not in RING, True))
    for number in RING:  # their own words are no validator's, so they are none
        world.reputations.said(NodeId(bytes([number]) * 20), heard([], VALIDATORS))
    asked = world.run(STEPS)
    told("twenty that are nobody, five honest", ring=share(asked, RING), fair=len(RING) / 25)
    assert share(asked, RING) < 0.1


def test_a_validator_that_lies_changes_little() -> None:
    def run(liars: int) -> Counter[int]:
        world = World(crowd([*HONEST, *RING]), lambda who, _: (who not in RING, True))
        for number in (*HONEST, *RING):
            words = [Word(0.5, good=number in RING) for _ in range(liars)]
            words += [Word(0.5, good=number in HONEST) for _ in range(VALIDATORS - liars)]
            world.reputations.said(NodeId(bytes([number]) * 20), heard(words, VALIDATORS))
        return world.run(STEPS)

    shares = {f"{liars} of {VALIDATORS} lie": share(run(liars), RING) for liars in range(VALIDATORS + 1)}
    told("share of the ring where validators praise it and blame the honest", **shares)
    none, one, *_, everyone = shares.values()
    assert abs(one - none) < 0.03
    assert everyone < 0.1, "what is said does not outlive what is seen"
