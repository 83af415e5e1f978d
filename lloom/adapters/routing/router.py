"""The way of a request to an executor that answers. It never touches the bytes of an answer."""

from __future__ import annotations

from lloom.adapters.routing.answer import Answer
from lloom.adapters.routing.attempt import Keeping
from lloom.adapters.routing.attempts import Attempts, Means
from lloom.adapters.routing.directory import Directory
from lloom.adapters.routing.figures import RoutingFigures
from lloom.adapters.routing.options import Finder
from lloom.adapters.routing.pool import Pool
from lloom.adapters.routing.purses import NONE, Purses
from lloom.adapters.routing.revival import Revival
from lloom.core.api.request import ApiRequest
from lloom.core.identity import NodeId
from lloom.core.offer import ModelOffer
from lloom.core.order import Client
from lloom.core.routing.explain import Verdict
from lloom.core.routing.plans import Plans


class Router:
    """Asks one executor after the other until content comes. `keeping` is shared by all its attempts. Made in a running loop."""

    def __init__(
        self,
        client: Client,
        plans: Plans,
        directory: Directory,
        pool: Pool,
        keeping: Keeping,
        purses: Purses = NONE,
    ) -> None:
        self.finder = Finder(plans, directory, keeping.settings.aliases)
        self._means = Means(client, plans, directory, pool, keeping, purses)
        self._directory = directory
        self._revival = Revival(pool, keeping.outcomes)

    async def ask(self, request: ApiRequest) -> Answer:
        """An answer whose first content has come.

        CallerFault if the request would fail anywhere (404 `model_not_found` names models with a similar name), RetryElsewhere
        (503 `no_executor`, or what the last executor failed with) if nobody answers.
        """
        plan = self._means.plans.of(request.model)
        plan.hedging.asked()
        deadline = self.finder.clock() + plan.settings.total_seconds
        options = await self.finder.find(request.model, deadline)
        self._revival.look(options)
        attempts = Attempts(self._means, options, deadline)
        return Answer(request, attempts, await attempts.next(request))

    async def close(self) -> None:
        """Gives up what goes on behind the requests."""
        await self._revival.close()

    def figures(self) -> RoutingFigures:
        """Its numbers, for a registry of Prometheus."""
        return RoutingFigures(self._means.plans, self.finder.waiting, self.finder.clock)

    async def explain(self, request: ApiRequest) -> list[Verdict]:
        """Whom `request` would go to now, and why; errors as in `ask`."""
        seconds = self._means.plans.of(request.model).settings.total_seconds
        return await self.finder.explain(request, self.finder.clock() + seconds)

    def reputation(self, executor: NodeId) -> float:
        """What is held of `executor`, from 0 to 1."""
        return self._means.plans.outcomes.reputation(executor, self.finder.clock())

    async def models(self) -> list[tuple[NodeId, ModelOffer]]:
        """Every model of every executor that could be asked."""
        return await self._directory.models()

    async def aliases(self) -> dict[str, list[tuple[NodeId, ModelOffer]]]:
        """What each alias stands for now, in order of preference; those that nobody serves are left out."""
        offered, found = await self.models(), {}
        for alias in self.finder.aliases:
            names = await self.finder.names(alias)
            found[alias] = [each for name in names for each in offered if each[1].id == name]
        return {alias: meant for alias, meant in found.items() if meant}

    async def offers(self, model: str) -> list[ModelOffer]:
        """Every offer of `model` (canonical), or of what it stands for here, in order of preference."""
        names, offered = await self.finder.names(model), await self.models()
        return [offer for name in names for _, offer in offered if offer.id == name]
