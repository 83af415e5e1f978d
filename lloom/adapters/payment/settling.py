"""Redeems vouchers and hears what became of it. core/payment/settlement.py decides when; the chain sends the transactions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

from loguru import logger
from msgspec.structs import replace

from lloom.adapters.journal import lanes
from lloom.adapters.journal.lanes import Owing
from lloom.adapters.journal.writer import Writer
from lloom.adapters.payment.treasury import Bank, Treasury, named, relied_on
from lloom.core.billing.lane import Lane
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId
from lloom.core.payment import events, receivable
from lloom.core.payment.events import Seen
from lloom.core.payment.funds import Funds, LaneFunds
from lloom.core.payment.receivable import Receivable
from lloom.core.payment.settlement import Due, batches

AGAIN_SECONDS: Final = 1800
"""A lane whose voucher was handed over and not paid is tried again after this: it may have brought less than its gas."""
RENEWED: Final = 16
"""Clients that are looked up again at each look, so that a deposit which others use up is noticed."""
STRANGE: Final = 256
"""Clients that owe, and of whom nothing is known since the start, that are looked up at each look."""

_OF_CLIENTS: Final = (
    events.ThawStarted,
    events.ThawCancelled,
    events.Withdrawn,
    events.Deposited,
    events.Refunded,
    events.Released,
    events.Reserved,
    events.ReleaseStarted,
)
_LEAVING: Final = (events.ThawStarted, events.Withdrawn, events.ReleaseStarted, events.Released)
"""A client takes its money away."""
_OF_LANES: Final = (events.Reserved, events.ReleaseStarted, events.Released, events.Skipped)

TakeBack = Callable[[bytes], Awaitable[None]]
"""Has back from Workers what they do not use of a client's lanes; it may raise RetryElsewhere."""


class Settling:
    """One chain, one executor, one token. Its life is `run`, while the chain calls `on_events`."""

    def __init__(
        self, bank: Bank, treasury: Treasury, writer: Writer, executor: NodeId, token: bytes, take_back: TakeBack
    ) -> None:
        self._take_back = take_back
        self._bank = bank
        self._treasury = treasury
        self._writer = writer
        self._executor = executor
        self._token = token
        self._seen: list[Seen] = []
        self._woken = asyncio.Event()

    def on_events(self, seen: Sequence[Seen]) -> None:
        """Takes news of the chain; they are acted on at once."""
        ours = [each for each in seen if self._concerns(each)]
        self._seen += ours
        if ours:
            self._woken.set()

    async def run(self) -> None:
        """Looks what is due, for ever: now and then, and whenever there is news."""
        pause = self._treasury.policy.limits.check_seconds
        while True:
            try:
                await self.hear()
                await self.look(time.time())
            except RetryElsewhere as error:
                logger.warning("what is due was not looked at: {}", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    async def look(self, now: float, *, everything: bool = False) -> list[int]:
        """Hands what is due to the chain (`everything`: all that is worth its gas); the numbers of the settlements."""
        await self._treasury.look()
        flying: defaultdict[Lane, int] = defaultdict(int)
        for lane, up_to in await self._bank.claims():
            flying[lane] = max(flying[lane], up_to)
        owing = [each for each in await self._writer.write(lanes.owing, 1) if not _tried(each, now)]
        dues = await self._dues(owing, flying, everything)
        ready = {each.state.lane: each.claim for each in owing}
        numbers = []
        for chosen in batches(dues, self._treasury.policy, now):
            claims = [ready[lane] for lane in chosen]
            number = await self._bank.settle(self._token, claims)
            await self._writer.write(lambda db, them=claims: lanes.hand(db, them, now), len(claims))  # type: ignore[misc]
            logger.info("settlement {}: redeems {} vouchers", number, len(claims))
            numbers.append(number)
        return numbers

    async def hear(self) -> None:
        """Acts on what the chain told since the last time."""
        self._woken.clear()
        seen, self._seen = self._seen, []
        try:
            for each in seen:
                self._treasury.deposited(each)
            await self._treasury.renew(self._shaken(seen))
            for client in dict.fromkeys(each.event.client for each in seen if isinstance(each.event, _LEAVING)):
                await self._take_back(client)
            stale = await self._paid(seen)
            for lane in await self._treasury.renew((), stale):
                await self._reread(lane)
        except RetryElsewhere:
            self._seen = seen + self._seen
            raise

    async def _dues(self, owing: Sequence[Owing], flying: Mapping[Lane, int], everything: bool) -> list[Due]:
        """`flying`: what is claimed on lanes by settlements that are not over. Only what goes beyond that is due: one that
        waits for cheaper gas must not keep back what has become of its lanes since.
        """
        await self._treasury.renew(self._treasury.oldest({each.state.lane.client for each in owing}, RENEWED))
        strange = 0
        dues = []
        for each in owing:
            lane = each.state.lane
            if self._treasury.known(lane) is None or not self._treasury.knows(lane.client):
                strange += 1
                if strange > STRANGE:
                    continue
            try:
                funds, line = await self._treasury.funds(lane.client), await self._treasury.lane(lane)
            except RetryElsewhere as error:
                logger.warning("what {} has on chain is not known: {}", named(lane.client), error)
                continue
            known = replace(each.state, claimed=max(each.state.claimed, flying.get(lane, 0)))
            dues.append(self._due(replace(each, state=known), funds, line, everything))
        return dues

    def _due(self, owing: Owing, funds: Funds, line: LaneFunds, everything: bool) -> Due:
        leaving = funds.thawing > 0 or line.released_at > 0
        return Due(
            state=receivable.paid(owing.state, max(owing.state.claimed, line.claimed), 0, line.reserved),
            since=owing.since,
            models=len(owing.usages),
            available=funds.balance,  # what thaws can be claimed until it is taken out
            urgent=leaving or everything,
        )

    def _concerns(self, seen: Seen) -> bool:
        event = seen.event
        if isinstance(
            event, events.Settled | events.Skipped | events.Reserved | events.ReleaseStarted | events.Released
        ):
            return event.token == self._token and event.executor == self._executor
        return isinstance(event, _OF_CLIENTS) and event.token == self._token

    def _shaken(self, seen: Iterable[Seen]) -> set[bytes]:
        """Known clients whose account has changed."""
        kinds = (*_OF_CLIENTS, events.Settled, events.Skipped)
        return {
            event.client
            for event in (each.event for each in seen)
            if isinstance(event, kinds) and self._treasury.knows(event.client)
        }

    async def _paid(self, seen: Iterable[Seen]) -> list[Lane]:
        """Notes payments; the lanes of which only the chain knows how they stand now.

        Of those that nobody here knows it is not asked: anybody can have hundreds of claims skipped, on any lane, for a cent.
        """
        stale: dict[Lane, None] = {}
        for each in seen:
            event = each.event
            if isinstance(event, events.Settled) and not each.removed:
                lane = Lane(event.client, event.token, event.lane)
                await self._note(lane, event, final=each.final)
                stale.setdefault(lane)
            elif isinstance(event, (*_OF_LANES, events.Settled)):
                stale.setdefault(Lane(event.client, event.token, event.lane))
        known = await self._writer.write(lambda db: lanes.known(db, stale), 1) if stale else set()
        return [lane for lane in stale if lane in known or self._treasury.known(lane) is not None]

    async def _note(self, lane: Lane, event: events.Settled, *, final: bool) -> None:
        def change(state: Receivable) -> Receivable:
            confirmed = event.claimed if final else 0
            return receivable.paid(state, max(state.claimed, event.claimed), confirmed, state.reserved)

        await self._writer.write(lambda db: lanes.paid(db, lane, change, event.target), 1)

    async def _reread(self, lane: Lane) -> None:
        line = await self._treasury.lane(lane)

        def change(state: Receivable) -> Receivable:
            return receivable.paid(state, line.claimed, 0, relied_on(line))

        await self._writer.write(lambda db: lanes.paid(db, lane, change), 1)


def _tried(owing: Owing, now: float) -> bool:
    """Whether a voucher of the lane was handed over a while ago, and did not do."""
    return owing.handed > 0 and 0 <= now - owing.handed_at < AGAIN_SECONDS
