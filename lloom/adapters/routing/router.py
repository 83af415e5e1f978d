"""The way of a request to an executor that answers. It never touches the bytes of an answer."""

from __future__ import annotations

import asyncio
import difflib
from random import Random
from typing import Final

from lloom.adapters.routing.answer import Answer
from lloom.adapters.routing.attempt import Keeping
from lloom.adapters.routing.attempts import Attempts, Means
from lloom.adapters.routing.directory import Directory
from lloom.adapters.routing.pool import Pool
from lloom.adapters.routing.purses import NONE, Purses
from lloom.adapters.routing.revival import Revival
from lloom.core.api.request import ApiRequest
from lloom.core.errors import CallerFault, RetryElsewhere
from lloom.core.identity import NodeId
from lloom.core.offer import ModelOffer
from lloom.core.order import Client
from lloom.core.routing.candidate import Candidate
from lloom.core.routing.selection import Selection

_NEAR: Final = 0.5
"""Likeness (difflib) from which a model's name is worth suggesting."""


class Router:
    """Asks one executor after the other until content comes. `keeping` is shared by all its attempts."""

    def __init__(
        self,
        client: Client,
        selection: Selection,
        directory: Directory,
        pool: Pool,
        keeping: Keeping,
        purses: Purses = NONE,
    ) -> None:
        rng = Random()  # noqa: S311 (it spreads load, it hides nothing)
        self._means = Means(client, selection, directory, pool, keeping, purses, rng)
        self._directory = directory
        self._settings = keeping.settings
        self._revival = Revival(pool, keeping.outcomes)

    async def ask(self, request: ApiRequest) -> Answer:
        """An answer whose first content has come.

        CallerFault if the request would fail anywhere (404 `model_not_found` names models with a similar name), RetryElsewhere
        (503 `no_executor`, or what the last executor failed with) if nobody answers.
        """
        deadline = asyncio.get_running_loop().time() + self._settings.total_seconds
        try:
            async with asyncio.timeout_at(deadline):
                candidates = await self._candidates(request)
        except TimeoutError:
            raise RetryElsewhere(
                "The network took too long to name an executor.", status=504, code="deadline"
            ) from None
        self._revival.look(candidates)
        attempts = Attempts(self._means, candidates, deadline)
        return Answer(request, attempts, await attempts.next(request))

    async def close(self) -> None:
        """Gives up what goes on behind the requests."""
        await self._revival.close()

    async def models(self) -> list[tuple[NodeId, ModelOffer]]:
        """Every model of every executor that could be asked."""
        return await self._directory.models()

    async def _candidates(self, request: ApiRequest) -> tuple[Candidate, ...]:
        found = await self._directory.candidates(request.model)
        if found.candidates:
            return found.candidates
        if found.announced:
            reasons = "; ".join(found.problems) or "their offers have expired"
            message = f"{found.announced} executors announce {request.model}, but none can be used: {reasons}."
            raise RetryElsewhere(message, status=503, code="no_executor", retry_after=self._soon)
        if not self._directory.connected:
            message = "This node has not found the network yet: nobody answers at network.bootstrap."
            raise RetryElsewhere(message, status=503, code="no_executor", retry_after=self._soon)
        raise await self._unknown(request.model)

    @property
    def _soon(self) -> float:
        return self._settings.negative_seconds

    async def _unknown(self, model: str) -> CallerFault:
        offered = sorted({offer.id for _, offer in await self._directory.models()})
        near = difflib.get_close_matches(model, offered, n=3, cutoff=_NEAR)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        message = f"The model '{model}' does not exist: no executor announces it.{hint}"
        return CallerFault(message, status=404, code="model_not_found", param="model")
