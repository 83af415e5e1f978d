"""The way of a request to an executor that answers: candidates, attempts, failover. It never touches the bytes of an answer."""

from __future__ import annotations

import asyncio
import difflib
import math
import os
import time
from random import Random
from typing import Final

from loguru import logger

from lloom.adapters.bridge import Connection
from lloom.adapters.routing.answer import Answer, Keeping
from lloom.adapters.routing.directory import Directory
from lloom.adapters.routing.pool import Pool
from lloom.adapters.routing.purchase import Tab
from lloom.adapters.routing.purse import Paid
from lloom.adapters.routing.purses import NONE, Purses
from lloom.adapters.routing.revival import Revival
from lloom.adapters.routing.statement import LANE_TIMEOUT
from lloom.core.api.request import ApiRequest
from lloom.core.errors import CallerFault, PeerFault, RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.offer import ModelOffer
from lloom.core.order import Client, Nonce, Order
from lloom.core.routing.candidate import Candidate, Nobody
from lloom.core.routing.outcomes import Place
from lloom.core.routing.selection import Selection

_NEAR: Final = 0.5
"""Likeness (difflib) from which a model's name is worth suggesting."""


class Router:
    """Asks one executor after the other until content comes. `keeping` is shared by all its answers."""

    def __init__(
        self,
        client: Client,
        selection: Selection,
        directory: Directory,
        pool: Pool,
        keeping: Keeping,
        purses: Purses = NONE,
    ) -> None:
        self._client = client
        self._purses = purses
        self._selection = selection
        self._directory = directory
        self._pool = pool
        self._keeping = keeping
        self._revival = Revival(pool, keeping.outcomes)
        self._rng = Random()  # noqa: S311 (it spreads load, it hides nothing)

    async def ask(self, request: ApiRequest) -> Answer:
        """An answer whose first content has come.

        CallerFault if the request would fail anywhere (404 `model_not_found` names models with a similar name), RetryElsewhere
        (503 `no_executor`, or what the last executor failed with) if nobody answers.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._keeping.settings.total_seconds
        try:
            async with asyncio.timeout_at(deadline):
                candidates = await self._candidates(request)
        except TimeoutError:
            raise RetryElsewhere(
                "The network took too long to name an executor.", status=504, code="deadline"
            ) from None
        self._revival.look(candidates)
        tab = Tab()
        tried: list[Place] = []
        failures: list[RetryElsewhere] = []
        asked_anew = False
        while len(tried) < self._keeping.settings.attempts:
            chosen = self._selection.choose(candidates, request, tried, loop.time(), self._rng)
            if isinstance(chosen, Nobody):
                if not failures:
                    raise _refused(chosen)
                if asked_anew or any(error.code != "unreachable" for error in failures):
                    break
                # They may have moved, or be reached through another relay by now.
                candidates, asked_anew = (await self._directory.anew(request.model)).candidates, True
                continue
            tried.append(chosen.place)
            try:
                return await self._attempt(chosen, request, tab, len(tried), deadline)
            except RetryElsewhere as error:
                logger.info("attempt {} at {} failed: {}", len(tried), checksum(chosen.executor), error)
                failures.append(error)
        raise _failed(failures)

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
        return self._keeping.settings.negative_seconds

    async def _unknown(self, model: str) -> CallerFault:
        offered = sorted({offer.id for _, offer in await self._directory.models()})
        near = difflib.get_close_matches(model, offered, n=3, cutoff=_NEAR)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        message = f"The model '{model}' does not exist: no executor announces it.{hint}"
        return CallerFault(message, status=404, code="model_not_found", param="model")

    async def _attempt(
        self, candidate: Candidate, request: ApiRequest, tab: Tab, number: int, deadline: float
    ) -> Answer:
        answer = Answer(candidate, number, deadline, self._keeping)
        try:
            connection = await self._pool.connection(candidate.executor, candidate.endpoint)
        except RetryElsewhere as error:
            raise await answer.failed(error) from error
        except BaseException:
            await answer.close()
            raise
        paid: Paid | None = None
        try:
            if candidate.payment is None:
                order = self._client.order(request, candidate, *_ending(deadline))
            else:
                order, paid = await self._buy(answer, candidate, request, tab, connection)
            await answer.begin(connection, order, request, paid)
        except RetryElsewhere as error:
            if error.code == "quote":
                self._directory.doubt(candidate.executor)
            if error.code == "payment_required" and paid is not None:
                paid.lanes.doubt(candidate.executor)
            raise
        return answer

    async def _buy(
        self, answer: Answer, candidate: Candidate, request: ApiRequest, tab: Tab, connection: Connection
    ) -> tuple[Order, Paid]:
        """The order with the voucher that pays for it. Leaves nothing behind when it raises."""
        assert candidate.payment is not None
        purse = self._purses.of(candidate.payment)
        assert purse is not None, "the selection lets only those through that can be paid"
        try:
            return await purse.order(candidate, request, tab, connection, _ending(answer.deadline))
        except RetryElsewhere as error:
            gone = connection.session.closed or error.code == LANE_TIMEOUT
            if gone or isinstance(error, PeerFault):
                raise await answer.failed(error, gone=gone) from error
            await answer.close()  # our own limits are no fault of the executor's
            raise
        except BaseException:
            await answer.close()
            raise


def _ending(deadline: float) -> tuple[Nonce, int]:
    """A fresh nonce, and `deadline` (on the loop's clock) in Unix seconds."""
    left = max(0.0, deadline - asyncio.get_running_loop().time())
    return Nonce(os.urandom(32), os.urandom(16)), math.ceil(time.time() + left)


def _refused(nobody: Nobody) -> RetryElsewhere | CallerFault:
    if nobody.code in ("payment_required", "price"):
        return RetryElsewhere(nobody.reason, status=402, code=nobody.code)
    if nobody.code != "no_executor":
        return CallerFault(nobody.reason, code=nobody.code, param=nobody.param)
    return RetryElsewhere(nobody.reason, status=503, code=nobody.code, retry_after=nobody.retry_after)


def _failed(failures: list[RetryElsewhere]) -> RetryElsewhere:
    """What the caller is told when everybody failed: the last reason, and the soonest time at which it may be better."""
    if len(failures) == 1:
        return failures[0]
    last = failures[-1]
    waits = [error.retry_after for error in failures if error.retry_after is not None]
    message = f"{len(failures)} attempts failed; the last one: {last}"
    return RetryElsewhere(message, status=last.status, code=last.code, retry_after=min(waits, default=None))
