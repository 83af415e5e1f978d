"""Requests that begin alike meet at one executor, and nobody is overrun for it."""

from __future__ import annotations

from collections import Counter
from random import Random

from msgspec.structs import replace

from lloom.core.api import affinity as keys
from lloom.core.routing import affinity
from lloom.core.routing.affinity import fraction
from lloom.core.routing.candidate import Candidate, Choice, Entrant
from lloom.core.routing.outcomes import Failure, Outcomes
from lloom.core.routing.rules import Rules
from lloom.core.routing.selection import Selection
from tests.unit.core.routing.test_selection import candidate, request

CROWD = [candidate(number, parallel=8) for number in range(20)]
KEYS = [keys.named(f"conversation {number}") for number in range(2000)]


def preferred(key: bytes, among: list[Candidate], loads: Counter[Candidate] | None = None) -> Candidate:
    idle = Outcomes(memory=600.0, rest=5.0).standing(among[0].place, 0.0)
    return affinity.preferred(
        key, [Entrant(each, replace(idle, load=(loads or {}).get(each, 0))) for each in among]
    ).candidate


def test_keys_spread_evenly_and_stay_where_they_are() -> None:
    shares = Counter(preferred(key, CROWD) for key in KEYS)
    assert len(shares) == 20
    assert all(60 < count < 145 for count in shares.values())
    assert shares == Counter(preferred(key, list(reversed(CROWD))) for key in KEYS)


def test_when_somebody_leaves_only_its_own_keys_move() -> None:
    gone, rest = CROWD[0], CROWD[1:]
    before = {key: preferred(key, CROWD) for key in KEYS}
    assert all(preferred(key, rest) is where for key, where in before.items() if where is not gone)


def test_one_hot_prompt_fills_nobody_beyond_its_bound() -> None:
    loads: Counter[Candidate] = Counter()
    for _ in range(80):
        chosen = preferred(KEYS[0], CROWD, loads)
        loads[chosen] += 1
    assert max(loads.values()) <= 6  # 1.25 of an average of four, rounded up
    assert preferred(KEYS[0], CROWD[:1], Counter({CROWD[0]: 16})) is CROWD[0]


def balanced(affinity: float) -> Selection:
    return Selection(Rules(affinity=affinity), Outcomes(memory=600.0, rest=5.0))


def share_at_one(selection: Selection) -> float:
    """Of a hundred requests of one conversation: those at the executor that got most."""
    asked = request(prompt_cache_key="mine")
    rng, places = Random(7), Counter[Candidate]()
    for _ in range(100):
        chosen = selection.choose(CROWD, asked, (), 0.0, rng)
        assert isinstance(chosen, Choice)
        places[chosen.candidate] += 1
    return places.most_common(1)[0][1] / 100


def test_a_conversation_stays_with_its_executor_if_that_matters() -> None:
    assert share_at_one(balanced(0.5)) == 1.0
    assert share_at_one(balanced(0.0)) < 0.3


def test_it_leaves_an_executor_that_is_much_worse_than_others() -> None:
    selection = balanced(0.5)
    home = preferred(request(prompt_cache_key="mine").affinity, CROWD)
    for each in CROWD:
        for _ in range(20):
            selection.outcomes.succeeded(each.place, 0.0, 1, 0.0)
            selection.outcomes.answered(each.place, 30.0 if each is home else 0.3, 0.0)
    chosen = selection.choose(CROWD, request(prompt_cache_key="mine"), (), 0.0, Random(1))
    assert isinstance(chosen, Choice)
    assert chosen.candidate is not home


def test_it_goes_elsewhere_while_its_executor_is_away() -> None:
    selection, asked = balanced(0.5), request(prompt_cache_key="mine")
    first = selection.choose(CROWD, asked, (), 0.0, Random(1))
    assert isinstance(first, Choice)
    selection.outcomes.failed(first.candidate.place, 0.0, Failure.SILENT, None)
    moved = {str(selection.choose(CROWD, asked, (), 0.0, Random(seed)).candidate.executor) for seed in range(5)}  # type: ignore[union-attr]
    assert len(moved) == 1


def test_all_requests_of_a_conversation_explore_or_none() -> None:
    selection = Selection(Rules(explore=0.25, affinity=0.5), Outcomes(memory=600.0, rest=5.0))
    exploring = [key for key in KEYS if fraction(key) < 0.25]
    assert 400 < len(exploring) < 600
    asked = request(prompt_cache_key="mine")
    told = {selection.choose(CROWD, asked, (), 0.0, Random(seed)).exploring for seed in range(20)}  # type: ignore[union-attr]
    assert len(told) == 1


# --- the key of a request

LONG = "You are a careful assistant. " * 60


def test_the_turns_of_a_conversation_have_one_key() -> None:
    system, user = {"role": "system", "content": LONG}, {"role": "user", "content": "hi"}
    first = request(messages=[system, user])
    later = request(
        messages=[system, user, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "more"}]
    )
    other = request(messages=[system, {"role": "user", "content": "something else"}])
    assert first.affinity == later.affinity != b""
    assert first.affinity != other.affinity


def test_short_prompts_have_no_key_unless_their_caller_says_who_they_belong_to() -> None:
    assert request().affinity == b""
    assert request(user="a").affinity == request(safety_identifier="a").affinity != b""
    assert request(prompt_cache_key="k", user="a").affinity == keys.named("k")
    assert request(user="a", messages=[{"role": "user", "content": LONG}]).affinity == keys.beginning([LONG])


def test_a_prompt_has_a_beginning_from_its_1024th_byte_on() -> None:
    def affinity(*texts: str) -> bytes:
        return request(messages=[{"role": "user", "content": text} for text in texts]).affinity

    assert affinity("é" * 512) == keys.beginning(["é" * 512]) != b""
    assert affinity("é" * 511 + "e") == affinity("hello", "é" * 512) == b""


def test_what_is_long_is_looked_at_only_so_far() -> None:
    assert keys.beginning(["x" * 20_000]) == keys.beginning(["x" * 30_000])
    assert keys.beginning(["x" * 2000, "y"]) != keys.beginning(["x" * 2000 + "y"])
