"""The attempts at one request: who is asked next, until content comes or nobody is left. It never reads an answer."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from loguru import logger

from lloom.adapters.bridge import Connection
from lloom.adapters.routing.attempt import Attempt, Keeping
from lloom.adapters.routing.directory import Directory
from lloom.adapters.routing.hedge import Trying, hedged
from lloom.adapters.routing.options import Options
from lloom.adapters.routing.pool import Pool
from lloom.adapters.routing.purchase import Tab
from lloom.adapters.routing.purse import Paid
from lloom.adapters.routing.purses import Purses
from lloom.adapters.routing.statement import LANE_TIMEOUT
from lloom.core.api.request import ApiRequest
from lloom.core.errors import CallerFault, PeerFault, RetryElsewhere
from lloom.core.identity import checksum
from lloom.core.order import Client, Nonce, Order
from lloom.core.routing.candidate import Candidate, Choice, Code, Nobody
from lloom.core.routing.outcomes import Place
from lloom.core.routing.plans import Plans
from lloom.core.vouch import MAX_SKEW

_STATUSES: Final[dict[Code, int]] = {
    "no_executor": 503,
    "busy": 429,
    "insufficient_quota": 429,
    "payment_required": 402,
    "price": 402,
}
"""Why nobody is left, where that is not the request's fault."""


@dataclass(frozen=True, slots=True)
class Means:
    """What attempts are made with; all requests of a router share them."""

    client: Client
    plans: Plans
    directory: Directory
    pool: Pool
    keeping: Keeping
    purses: Purses


class Attempts:
    """Asks one of `options` after the other. `deadline`: on the loop's clock, for all attempts together."""

    def __init__(self, means: Means, options: Options, deadline: float) -> None:
        self.deadline = deadline
        self.settings = options.settings
        self._means = means
        self._all = self._options = options
        self._tab = Tab()
        self._clock = options.clock
        self._tried: list[Place] = []
        self._limit = 0
        self._asked_anew = False

    @property
    def count(self) -> int:
        """Attempts so far."""
        return len(self._tried)

    async def next(self, request: ApiRequest) -> Attempt:
        """One whose first content has come, among at most `routing.attempts` further ones.

        CallerFault if the request would fail anywhere, RetryElsewhere (503 `no_executor`, or what the last executor failed with)
        if nobody answers.
        """
        failures: list[RetryElsewhere] = []
        self._limit = self.count + self.settings.attempts
        while self.count < self._limit:
            chosen = await self._options.choose(request, self._tried)
            if isinstance(chosen, Nobody):
                if not failures:
                    raise _refused(chosen)
                if self._asked_anew or any(error.code != "unreachable" for error in failures):
                    break
                # They may have moved, or be reached through another relay by now.
                await self._options.anew()
                self._asked_anew = True
                continue
            late = self._late(chosen.candidate.place)
            try:
                if late is None:
                    return await self._try(chosen, request)
                return await self._hedged(chosen, request, late)
            except RetryElsewhere as error:
                failures.append(error)
        raise _failed(failures)

    def go_on(self, model: str) -> None:
        """The attempts that follow are made with another prompt, at `model` only, and may cost what that one may.

        The text that is there is paid for, and no part of what is ordered now; but its executor's prompt has to be paid again.
        """
        self._tab = Tab()
        self._options = self._all.of(model)

    def begin_anew(self, *, as_new: bool) -> None:
        """Those that follow are made with the request as it came, at all that it may be sent to.

        `as_new`: they may cost as much as a request; else what those before them cost is taken from that.
        """
        if as_new:
            self._tab = Tab()
        self._options = self._all

    def _late(self, place: Place) -> float | None:
        """After how many seconds an attempt there is late; None where `routing.hedge_share` allows no other one behind it."""
        return self._means.plans.of(place[2]).hedging.delay(place, self._clock())

    async def _hedged(self, chosen: Choice, request: ApiRequest, late: float) -> Attempt:
        """An attempt, and perhaps another one behind it where the first is `late`."""
        hedging = self._means.plans.of(chosen.candidate.terms.id).hedging

        def second() -> Trying | None:
            other = self._options.free(request, self._tried)
            return None if other is None or not hedging.take() else self._try(other, request)

        return await hedged(self._try(chosen, request), late, second)

    async def _try(self, chosen: Choice, request: ApiRequest) -> Attempt:
        self._tried.append(chosen.candidate.place)
        try:
            return await self._attempt(chosen, request)
        except RetryElsewhere as error:
            logger.info("attempt {} at {} failed: {}", self.count, checksum(chosen.candidate.executor), error)
            raise

    async def _attempt(self, chosen: Choice, request: ApiRequest) -> Attempt:
        means, candidate = self._means, chosen.candidate
        settings = means.plans.of(candidate.terms.id).settings
        keeping = means.keeping
        if settings is not keeping.settings:
            keeping = replace(keeping, settings=settings)
        attempt = Attempt(candidate, self.deadline, keeping, self._clock)
        attempt.routing = str(chosen)
        try:
            connection = await means.pool.connection(candidate.executor, candidate.endpoint)
        except RetryElsewhere as error:
            raise await attempt.failed(error) from error
        except BaseException:
            await attempt.close()
            raise
        paid: Paid | None = None
        try:
            if candidate.payment is None:
                order = means.client.order(request, candidate, *self._ending())
            else:
                order, paid = await self._buy(attempt, candidate, request, connection)
            again = partial(means.pool.connection, candidate.executor, candidate.endpoint)
            await attempt.begin(connection, order, request, paid, again)
        except RetryElsewhere as error:
            if error.code == "quote":
                means.directory.doubt(candidate.executor)
                if candidate.quote.valid_until > time.time() + MAX_SKEW:  # it still holds
                    keeping.outcomes.mispriced(candidate.place, self._clock())
            if error.code == "payment_required" and paid is not None:
                paid.lanes.doubt(candidate.executor)
            raise
        return attempt

    async def _buy(
        self, attempt: Attempt, candidate: Candidate, request: ApiRequest, connection: Connection
    ) -> tuple[Order, Paid]:
        """The order with the voucher that pays for it. Leaves nothing behind when it raises."""
        assert candidate.payment is not None
        purse = self._means.purses.of(candidate.payment)
        assert purse is not None, "the selection lets only those through that can be paid"
        try:
            return await purse.order(candidate, request, self._tab, connection, self._ending())
        except RetryElsewhere as error:
            gone = connection.session.closed or error.code == LANE_TIMEOUT
            if gone or isinstance(error, PeerFault):
                raise await attempt.failed(error, gone=gone) from error
            await attempt.close()  # our own limits are no fault of the executor's
            self._limit += self._options.spare()  # nobody was asked
            raise
        except BaseException:
            await attempt.close()
            raise

    def _ending(self) -> tuple[Nonce, int]:
        """A fresh nonce, and the deadline in Unix seconds."""
        left = max(0.0, self.deadline - self._clock())
        fresh = os.urandom(48)
        return Nonce(fresh[:32], fresh[32:]), math.ceil(time.time() + left)


def _refused(nobody: Nobody) -> RetryElsewhere | CallerFault:
    status = _STATUSES.get(nobody.code)
    if status is None:
        return CallerFault(nobody.reason, code=nobody.code, param=nobody.param)
    return RetryElsewhere(nobody.reason, status=status, code=nobody.code, retry_after=nobody.retry_after)


def _failed(failures: list[RetryElsewhere]) -> RetryElsewhere:
    """What the caller is told when everybody failed: the last reason, and the soonest time at which it may be better."""
    if len(failures) == 1:
        return failures[0]
    last = failures[-1]
    waits = [error.retry_after for error in failures if error.retry_after is not None]
    message = f"{len(failures)} attempts failed; the last one: {last}"
    return RetryElsewhere(message, status=last.status, code=last.code, retry_after=min(waits, default=None))
