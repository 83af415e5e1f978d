"""What clients have on chain, as far as an executor has looked lately. It decides nothing and keeps nothing on disk.

Bad news is believed as of the newest block, good news once it is final: a deposit that may still vanish does not count.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar, cast

from loguru import logger

from lloom.core.billing.lane import Lane
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.payment.events import Deposited, Seen
from lloom.core.payment.fees import Prices
from lloom.core.payment.funds import Funds, LaneFunds
from lloom.core.payment.receivable import Means
from lloom.core.payment.settlement import Policy
from lloom.core.payment.voucher import Claim
from lloom.core.settings import Chain, SettlementSettings

T = TypeVar("T")
K = TypeVar("K")

MAX_KNOWN: Final = 20_000
"""Clients, and lanes, that are remembered; of others the chain is asked again."""
MAX_LOOKUPS: Final = 16
"""Questions to the chain at once: addresses cost nothing, and servers count them."""
MAX_WAITING: Final = 256


class Bank(Protocol):
    """The chain, as an executor needs it (adapters/chain). Everything may raise RetryElsewhere: nobody answers."""

    async def funds(self, client: NodeId, token: bytes) -> Funds:
        """A client's account at the newest block."""

    async def lane(self, client: NodeId, executor: NodeId, token: bytes, number: int) -> LaneFunds:
        """A lane's money at the newest block."""

    async def prices(self) -> Prices:
        """Of gas and of bytes, now."""

    async def settle(self, token: bytes, claims: Sequence[Claim]) -> int:
        """Journals a settlement that will be sent once; its number."""

    async def claims(self) -> list[tuple[Lane, int]]:
        """What journaled settlements claim that are not over: lanes, and in all how much."""


class Treasury:
    """One chain, one executor, one token."""

    def __init__(self, bank: Bank, executor: NodeId, token: bytes, limits: SettlementSettings, chain: Chain) -> None:
        self.policy = Policy(limits, chain, Prices(0, 0))
        self._bank = bank
        self._executor = executor
        self._token = token
        self._funds: OrderedDict[bytes, Funds] = OrderedDict()
        self._lanes: OrderedDict[Lane, LaneFunds] = OrderedDict()
        self._deposits: dict[tuple[bytes, int], Deposited] = {}
        self._lookups: dict[object, asyncio.Task[Any]] = {}
        self._looked: dict[bytes, float] = {}
        self._loop = asyncio.get_running_loop()
        self._places = asyncio.Semaphore(MAX_LOOKUPS)

    async def means(self, client: bytes) -> Means:
        """What stands behind a client's vouchers. RetryElsewhere if that is not known and cannot be found out."""
        return self.policy.means(self.available(await self.funds(client), client))

    async def funds(self, client: bytes) -> Funds:
        """A client's account, from memory if it is there."""
        found = self._funds.get(client)
        return found if found is not None else await self._read_funds(client)

    async def lane(self, lane: Lane) -> LaneFunds:
        """A lane's money, from memory if it is there."""
        found = self._lanes.get(lane)
        return found if found is not None else await self._read_lane(lane)

    def known(self, lane: Lane) -> LaneFunds | None:
        """What the chain said about the lane, None if it was not asked."""
        return self._lanes.get(lane)

    def knows(self, client: bytes) -> bool:
        """Whether a client's account was ever looked up."""
        return client in self._funds

    def aged(self, client: bytes, seconds: float) -> bool:
        """Whether a client's account was looked up so long ago."""
        return self._loop.time() - self._looked.get(client, -seconds) >= seconds

    def available(self, funds: Funds, client: bytes) -> int:
        """What of a client's account is there for certain, and not about to be taken out."""
        loose = sum(deposit.amount for deposit in self._deposits.values() if deposit.client == client)
        return max(0, funds.available - loose)

    async def look(self) -> None:
        """Learns what a settlement costs now."""
        self.policy = Policy(self.policy.limits, self.policy.chain, await self._bank.prices())

    async def renew(self, clients: Iterable[bytes] = (), lanes: Iterable[Lane] = ()) -> list[Lane]:
        """Asks the chain again; the lanes of which it told. What it does not tell stays as it was."""
        jobs: list[Awaitable[object]] = [self._read_funds(client) for client in clients]
        wanted = list(lanes)
        found = await asyncio.gather(*map(self._read_lane, wanted), *jobs, return_exceptions=True)
        for problem in found:
            if isinstance(problem, BaseException):
                logger.warning("what a client has on chain is not known right now: {}", problem)
        return [lane for lane, answer in zip(wanted, found, strict=False) if isinstance(answer, LaneFunds)]

    def oldest(self, clients: Iterable[bytes], count: int) -> list[bytes]:
        """Those among `clients` that were looked up longest ago."""
        wanted = set(clients)
        return [client for client in self._funds if client in wanted][:count]

    def deposited(self, seen: Seen) -> None:
        """Remembers a deposit until it is final or gone."""
        key = (seen.transaction, seen.index)
        if not isinstance(seen.event, Deposited) or seen.event.token != self._token:
            return
        if seen.final or seen.removed:
            self._deposits.pop(key, None)
        elif len(self._deposits) < MAX_KNOWN:
            self._deposits[key] = seen.event

    async def _read_funds(self, client: bytes) -> Funds:
        found = await self._once(client, lambda: self._bank.funds(NodeId(client), self._token))
        self._looked[client] = self._loop.time()
        return _remember(self._funds, client, found, self._looked)

    async def _read_lane(self, lane: Lane) -> LaneFunds:
        client, number = NodeId(lane.client), lane.number
        found = await self._once(lane, lambda: self._bank.lane(client, self._executor, self._token, number))
        return _remember(self._lanes, lane, found)

    async def _once(self, what: object, ask: Callable[[], Awaitable[T]]) -> T:
        """The chain's answer; those who ask the same at the same time share it."""
        task = self._lookups.get(what)
        if task is None:
            if len(self._lookups) >= MAX_WAITING:
                raise RetryElsewhere(
                    "Too many clients are new to this executor.", status=429, code="busy", retry_after=1
                )
            task = self._lookups[what] = asyncio.create_task(self._ask(ask))
            task.add_done_callback(partial(self._over, what))
        return cast(T, await asyncio.shield(task))

    def _over(self, what: object, task: asyncio.Task[Any]) -> None:
        del self._lookups[what]
        if not task.cancelled():
            task.exception()  # whoever asked may have given up

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> T:
        async with self._places:
            return await ask()


def relied_on(lane: LaneFunds) -> int:
    """What is reserved for a lane and stays so."""
    return 0 if lane.released_at else lane.reserved


def named(client: bytes) -> str:
    """A client as the log names it."""
    return checksum(NodeId(client))


def _remember(known: OrderedDict[K, T], key: K, value: T, besides: dict[K, float] | None = None) -> T:
    known[key] = value
    known.move_to_end(key)
    if len(known) > MAX_KNOWN:
        oldest, _ = known.popitem(last=False)
        if besides is not None:
            besides.pop(oldest, None)
    return value
