"""How one model's requests are routed. It knows no executor's experience."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import msgspec

from lloom.core.identity import NodeId, parse_address
from lloom.core.routing.filters import Limits, Problem, Spending, pays_nobody
from lloom.core.settings import Policy, RoutingSettings


@dataclass(frozen=True, slots=True)
class Rules:
    """A policy, and whom it may choose from. `pinned`: in order of preference. The shares go from 0 to 1."""

    policy: Policy = "balanced"
    pinned: tuple[NodeId, ...] = ()
    limits: Limits = field(default_factory=Limits)
    affinity: float = 0.0
    """How much worse than another one the executor may be that has the beginning of the prompt in its cache."""
    explore: float = 0.0
    """Of the requests: those for which newcomers count as well as others."""
    reputation: float = 0.0
    """Of the score: what is lost without any reputation; 0: it does not matter."""


def rules(routing: RoutingSettings, problem: Problem = pays_nobody) -> Rules:
    """The rules in `routing`, which has been checked."""
    spending = Spending(routing.max_input_price, routing.max_output_price, problem)
    return Rules(
        policy=routing.policy,
        pinned=tuple(map(parse_address, routing.executors)),
        limits=Limits(
            frozenset(map(parse_address, routing.allow)), frozenset(map(parse_address, routing.deny)), spending
        ),
        affinity=routing.affinity,
        explore=routing.explore,
        reputation=routing.reputation,
    )


def matches(pattern: str, model: str) -> bool:
    """Whether `pattern` (an id, or one with `*`, `?`, `[…]` in it) means `model`."""
    return fnmatchcase(model, pattern.lower())


def resolved(routing: RoutingSettings, model: str) -> RoutingSettings:
    """`routing` as it holds for `model`: with what the first of `routing.models` says that names it, exact names first."""
    patterns = sorted(routing.models, key=lambda pattern: pattern.lower() != model)
    found = next((pattern for pattern in patterns if matches(pattern, model)), None)
    if found is None:
        return routing
    said = routing.models[found]
    changes = {name: value for name in said.__struct_fields__ if (value := getattr(said, name)) is not msgspec.UNSET}
    if changes.get("policy", "pinned") != "pinned":
        changes.setdefault("executors", ())  # those that others are pinned to
    return msgspec.structs.replace(routing, **changes)
