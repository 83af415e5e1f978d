"""What is different for some models, and for whom a request is not at all."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from lloom.core.identity import checksum
from lloom.core.routing.candidate import Candidate, Choice, Nobody
from lloom.core.routing.filters import Limits
from lloom.core.routing.outcomes import Outcomes
from lloom.core.routing.plans import Plans
from lloom.core.routing.rules import Rules, matches, resolved
from lloom.core.routing.selection import Selection
from lloom.core.settings import ModelRouting
from tests.unit.adapters.routing_support import SETTINGS
from tests.unit.core.routing.test_selection import A, B, ask, request


def plans(**models: dict[str, Any]) -> Plans:
    said = {name: ModelRouting(**changes) for name, changes in models.items()}
    return Plans(msgspec.structs.replace(SETTINGS, models=said), Outcomes(600.0, 5.0))


def test_what_is_said_for_a_model_holds_and_all_else_stays() -> None:
    some = plans(m={"policy": "fastest", "attempts": 1, "max_output_price": None})
    settings = some.of("m").settings
    assert (settings.policy, settings.attempts, settings.total_seconds) == ("fastest", 1, SETTINGS.total_seconds)
    assert some.of("m").selection.rules.policy == "fastest"
    assert some.of("other").settings.policy == SETTINGS.policy


def test_exact_names_go_before_patterns_and_the_first_pattern_before_others() -> None:
    some = plans(**{"q*": {"attempts": 1}, "qwen*": {"attempts": 2}, "qwen3": {"attempts": 4}})
    assert [some.of(name).settings.attempts for name in ("qwen3", "qwen2", "quark", "m")] == [4, 1, 1, 3]


def test_a_plan_is_made_once_and_shared_where_nothing_is_different() -> None:
    some = plans(m={"hedge_share": 0.1})
    assert some.of("m") is some.of("m") is not some.of("a")
    assert some.of("a") is some.of("b")


def test_made_up_names_do_not_fill_the_memory() -> None:
    some = plans()
    for number in range(10_000):
        some.of(f"m{number}")
    assert len(some._plans) <= 4096


def test_models_are_not_pinned_to_whom_others_are_pinned() -> None:
    pinned = msgspec.structs.replace(
        SETTINGS, policy="pinned", executors=("0x" + "00" * 20,), models={"m": ModelRouting(policy="cheapest")}
    )
    assert resolved(pinned, "m").executors == ()


@pytest.mark.parametrize(
    ("pattern", "model", "fits"),
    [
        ("qwen*", "qwen3-8b", True),
        ("Qwen*", "qwen3-8b", True),
        ("*", "a/b:c", True),
        ("qwen?-8b", "qwen3-8b", True),
        ("qwen", "qwen3", False),
    ],
)
def test_patterns(pattern: str, model: str, fits: bool) -> None:
    assert matches(pattern, model) == fits


# --- allow and deny


def limited(**limits: frozenset[Any]) -> Candidate | Nobody:
    selection = Selection(Rules("cheapest", limits=Limits(**limits)), Outcomes(600.0, 5.0))
    return ask(selection, [A, B], request(), (), 0.0, Random(1))


def test_only_the_allowed_are_asked_and_none_of_the_denied() -> None:
    assert limited(allow=frozenset({A.executor})) is A
    assert limited(deny=frozenset({A.executor})) is B
    nobody = limited(allow=frozenset({A.executor}), deny=frozenset({A.executor}))
    assert isinstance(nobody, Nobody)
    assert nobody.reason == (
        "No executor of m can take this request: 1 that routing.deny names; 1 that routing.allow does not name."
    )


def test_the_lists_are_read_from_addresses() -> None:
    some = Plans(msgspec.structs.replace(SETTINGS, deny=(checksum(A.executor),)), Outcomes(600.0, 5.0))
    chosen = some.of("m").selection.choose([A, B], request(), (), 0.0, Random(1))
    assert isinstance(chosen, Choice)
    assert chosen.candidate is B
