"""How each model is routed, worked out once. It asks nobody anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lloom.core.routing.filters import Problem, pays_nobody
from lloom.core.routing.hedging import Hedging
from lloom.core.routing.outcomes import Outcomes
from lloom.core.routing.rules import resolved, rules
from lloom.core.routing.selection import Selection
from lloom.core.settings import RoutingSettings

_MAX_PLANS: Final = 4096


@dataclass(frozen=True, slots=True)
class Plan:
    """`settings` as they hold for the model."""

    settings: RoutingSettings
    selection: Selection
    hedging: Hedging


class Plans:
    """A plan for each model; those that no `routing.models` names share one."""

    def __init__(self, routing: RoutingSettings, outcomes: Outcomes, problem: Problem = pays_nobody) -> None:
        self.outcomes = outcomes
        self._problem = problem
        self._routing = routing
        self._usual = self._plan(routing)
        self._plans: dict[str, Plan] = {}

    def of(self, model: str) -> Plan:
        """The plan for `model` (canonical)."""
        plan = self._plans.get(model)
        if plan is None:
            settings = resolved(self._routing, model)
            plan = self._usual if settings is self._routing else self._plan(settings)
            if len(self._plans) >= _MAX_PLANS:  # anybody can make up names
                self._plans.clear()
            self._plans[model] = plan
        return plan

    @property
    def hedges(self) -> int:
        """Requests that went to a second executor so far."""
        return sum(
            plan.hedging.taken for plan in {id(plan): plan for plan in (self._usual, *self._plans.values())}.values()
        )

    def _plan(self, settings: RoutingSettings) -> Plan:
        selection = Selection(rules(settings, self._problem), self.outcomes)
        return Plan(settings, selection, Hedging(settings.hedge_share, self.outcomes))
