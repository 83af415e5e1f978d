"""Everything one Accounting actor needs of its chain: what the contract says, transactions, events. It decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Final

from loguru import logger

from lloom.adapters.chain import deployment, gas
from lloom.adapters.chain.answers import header
from lloom.adapters.chain.contract import Contract, settlement
from lloom.adapters.chain.follower import Follower
from lloom.adapters.chain.head import newest
from lloom.adapters.chain.oracle import Oracle
from lloom.adapters.chain.rpc import ChainAway, Rpc
from lloom.adapters.chain.sender import Sender
from lloom.adapters.journal import sightings, transactions
from lloom.adapters.journal.transactions import Claim
from lloom.adapters.journal.writer import Writer
from lloom.core.errors import ConfigError, RetryElsewhere
from lloom.core.identity import Identity, NodeId, parse_address
from lloom.core.payment.events import Seen
from lloom.core.payment.fees import Prices, price
from lloom.core.payment.funds import Funds, LaneFunds
from lloom.core.payment.voucher import Claim as VoucherClaim
from lloom.core.settings import Chain as Settings

SURVEY_SECONDS: Final = 60.0
"""Pause between two looks at all servers: the one that is used may be stuck without knowing it."""
POLL_SECONDS: Final = 3.0
"""Pause between two looks at a public chain with fast blocks: servers limit how often they are asked."""


class Chain:
    """Its life is `open`, then `run` in one task while others ask, then `close`."""

    def __init__(self, name: str, settings: Settings, rpc: Rpc, writer: Writer, sender: Sender | None) -> None:
        self.name = name
        self.settings = settings
        self.on_events: Callable[[Sequence[Seen]], None] = lambda _: None
        """Told every event of the contract; set it before `run`. The same may be told twice."""
        assert settings.contract is not None, "the contract is looked up when a node starts"
        self._contract = Contract(rpc, parse_address(settings.contract))
        self._rpc = rpc
        self._oracle = Oracle(rpc, settings)
        self._writer = writer
        self._sender = sender
        self._follower = Follower(rpc, self._contract.address, writer, lambda events: self.on_events(events))
        self._poke = asyncio.Event()
        self._checked = False
        self._loaded = False
        self._away = False

    @classmethod
    async def open(
        cls,
        name: str,
        settings: Settings,
        identity: Identity | None,
        writer: Writer,
        urls: Sequence[str],
        clock: Callable[[], float] = time.time,
    ) -> Chain:
        """The chain of the settings, whose contract is known by now. `identity`: who sends; None: nobody does.

        ConfigError if it is another chain than before, has no contract or another one, or has never answered yet. If it did
        before and nobody answers now, it is waited for behind the scenes, and calls raise ChainAway.
        """
        await asyncio.to_thread(importlib.import_module, "lloom.adapters.chain.server")  # web3 takes a second
        rpc = Rpc.open(name, settings, urls)
        sender = None if identity is None else Sender(rpc, settings, identity, writer, clock)
        chain = cls(name, settings, rpc, writer, sender)
        try:
            await chain._check()
        except ChainAway as error:
            if not await writer.write(sightings.facts, 1):
                await rpc.close()
                raise ConfigError(f"chain.{name}: {error} Name one that does: chain.{name}.rpc=[https://…]") from error
            logger.warning("{} Money is not looked after until one does.", error)
        except BaseException:
            await rpc.close()
            raise
        return chain

    async def close(self) -> None:
        """Closes the connections."""
        await self._rpc.close()

    async def funds(self, client: NodeId, token: bytes, *, final: bool = False) -> Funds:
        """A client's account, as of the newest block, or the newest final one."""
        return await self._contract.funds(client, token, self._at(final))

    async def lane(
        self, client: NodeId, executor: NodeId, token: bytes, number: int, *, final: bool = False
    ) -> LaneFunds:
        """A lane's money, as of the newest block, or the newest final one."""
        return await self._contract.lane(client, executor, token, number, self._at(final))

    async def earned(self, executor: NodeId, token: bytes) -> int:
        """What an executor can take out."""
        return await self._contract.earned(executor, token)

    async def prices(self) -> Prices:
        """What gas and bytes of a settlement cost now."""
        market = await gas.market(self._rpc)
        return Prices(price(market.base_fee, market.fees), await self._oracle.byte())

    async def settle(self, token: bytes, claims: Sequence[VoucherClaim]) -> int:
        """The number of a new job that redeems `claims`, all in `token`, once it is on the disk; it then arrives once."""
        assert self._sender is not None, "who redeems has a key"
        data = settlement(claims[0].checked.voucher.executor, token, claims)
        listed = [(claim.checked.lane, claim.up_to) for claim in claims]
        job = await self._sender.add(self._contract.address, data, listed)
        self._poke.set()
        return job

    async def claims(self) -> list[Claim]:
        """What is on its way to be redeemed: lanes, and what is claimed on them in all."""
        return await self._writer.write(transactions.claims, 1)

    async def run(self) -> None:
        """Sends and follows until cancelled. ConfigError if it turns out to be another chain, or to lack the contract, once a
        server answers for the first time.
        """
        surveyed = time.monotonic()
        while True:
            try:
                if time.monotonic() - surveyed > SURVEY_SECONDS:
                    surveyed = time.monotonic()
                    await self._survey()
                await self.step()
                self._recovered()
            except RetryElsewhere as error:
                self._trouble(error)
            self._poke.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._poke.wait()

    async def step(self) -> None:
        """One look at the chain's end. RetryElsewhere if no server can say."""
        if not self._checked:
            await self._check()
        if not self._loaded:
            await self._follower.load()
            self._loaded = True
        head = await newest(self._rpc, self.settings)
        try:
            await self._follower.step(head)
        finally:  # a server that keeps no events may send transactions all the same
            if self._sender is not None:
                await self._sender.step(head)

    async def _survey(self) -> None:
        """Servers that were of our chain and say another one for a while are away: who ends of that redeems nothing."""
        try:
            await self._rpc.survey()
        except ConfigError as error:
            if not self._checked:
                raise
            raise ChainAway(str(error)) from error

    async def _check(self) -> None:
        """ConfigError unless this is the chain of the settings, the one of the journal, and has the contract."""
        await self._rpc.survey()
        await deployment.check(self._rpc, self._contract.address)
        # Asked so that a server which does not know it is passed over: nothing says then that it is the same chain, or another.
        genesis = (await self._rpc.ask(header, "eth_getBlockByNumber", hex(0), False)).block.hash
        facts = await self._writer.write(sightings.facts, 1)
        strange = facts.get("genesis", genesis) != genesis
        if strange and not self.settings.local:
            raise ConfigError(
                f"chain.{self.name}: this is another chain than the one in the journal, although both have the id "
                f"{self.settings.id}; call it by another name, or choose another home"
            )
        if strange:
            logger.warning("{}: the chain for tests is a new one; what was sent to the old one is forgotten", self.name)
        other = strange or facts.get("contract", self._contract.address) != self._contract.address

        def work(db: sqlite3.Connection) -> None:
            if strange:
                transactions.forget(db)
            if other:
                sightings.forget(db)
            sightings.note(db, "genesis", genesis)
            sightings.note(db, "contract", self._contract.address)

        await self._writer.write(work, 3)
        self._checked = True

    def _at(self, final: bool) -> str:
        return self.settings.finality if final else "latest"

    def _pause(self) -> float:
        return self.settings.block_seconds if self.settings.local else max(self.settings.block_seconds, POLL_SECONDS)

    def _trouble(self, error: RetryElsewhere) -> None:
        logger.log("DEBUG" if self._away else "WARNING", "{}: {}", self.name, error)
        self._away = True

    def _recovered(self) -> None:
        if self._away:
            logger.info("{}: the chain answers again", self.name)
        self._away = False
