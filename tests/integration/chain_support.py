"""A real chain for tests: anvil with the contract, people with money, vouchers, and a server in front of it that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from money_support import accounting
from money_support import chain as chain_settings

from lloom.adapters.chain import anvil, banking, deployment
from lloom.adapters.chain.chain import Chain
from lloom.adapters.chain.rpc import Rpc
from lloom.adapters.chain.wallet import Wallet
from lloom.adapters.journal import transactions
from lloom.adapters.journal.transactions import Attempt, State
from lloom.adapters.journal.writer import Writer
from lloom.core.eip712 import Domain
from lloom.core.identity import Identity, checksum
from lloom.core.messages import Usage
from lloom.core.payment.domain import domain
from lloom.core.payment.events import Event, Seen
from lloom.core.payment.voucher import CheckedVoucher, Claim, Voucher, check, sign, usage_hash
from lloom.core.settings import Chain as Settings

COIN = bytes(20)
ETHER = 10**18
FINNEY = 10**15
ORACLE = "0x420000000000000000000000000000000000000F"
"""Where chains of the OP stack have the contract that says what bytes cost."""
_ORACLE = "60003560e01c63f1c7a58b1460145760006000fd5b6004357f{price:064x}0260005260206000f3"
"""`getL1FeeUpperBound(size)` is `size` times the price; whatever else is called reverts."""
REVERTS = "60006000fd"


@dataclass
class Local:
    """The chain at `url`; what a test does to it is undone after the test."""

    url: str

    def settings(self, **changes: Any) -> Settings:
        found = {"rpc": (self.url,), "contract": checksum(deployment.address()), **changes}
        return chain_settings(**found)

    @property
    def domain(self) -> Domain:
        return domain(self.settings())

    async def call(self, method: str, *params: Any) -> Any:
        rpc = Rpc.open("anvil", self.settings(), (self.url,))
        try:
            return await rpc.call(method, *params)
        finally:
            await rpc.close()

    async def mine(self, blocks: int = 1) -> None:
        await self.call("anvil_mine", hex(blocks))

    async def still(self) -> None:
        """From now on blocks are made by `mine` only."""
        await self.call("evm_setAutomine", False)

    async def person(self, coins: int = 10 * ETHER) -> Identity:
        """Somebody new, with money."""
        who = Identity.generate()
        await anvil.fund("anvil", self.settings(), who.address, coins)
        return who

    def op(self, most: int = 10**12, **changes: Any) -> Settings:
        """Settings as if it were of the OP stack, `most` what a byte is believed to cost."""
        return self.settings(l1_oracle={"address": ORACLE, "max_fee": most}, **changes)

    async def oracle(self, price: int | None, code: str = REVERTS) -> None:
        """From now on the oracle says that a byte costs `price`; None: its code is `code`."""
        await self.call("anvil_setCode", ORACLE, "0x" + (code if price is None else _ORACLE.format(price=price)))

    @contextlib.asynccontextmanager
    async def wallet(self, who: Identity, settings: Settings | None = None) -> AsyncIterator[Wallet]:
        chosen = settings or self.settings()
        rpc = Rpc.open("anvil", chosen, chosen.rpc)
        try:
            yield Wallet(rpc, chosen, who)
        finally:
            await rpc.close()

    async def deposit(self, client: Identity, amount: int) -> None:
        async with self.wallet(client) as wallet:
            await banking.deposit(wallet, deployment.address(), COIN, amount)

    async def client(self, deposit: int = ETHER) -> Identity:
        """Somebody new who has paid in."""
        who = await self.person(deposit + ETHER)
        await self.deposit(who, deposit)
        return who

    def voucher(self, client: Identity, executor: Identity, cumulative: int, lane: int = 0) -> CheckedVoucher:
        usages = (Usage(b"\x07" * 32, 1000, 2000, 3),)
        words = Voucher(client.address, executor.address, COIN, lane, cumulative, cumulative, usage_hash(usages))
        return check(sign(words, usages, (), client, self.domain), executor.address, self.domain)

    def claim(self, client: Identity, executor: Identity, cumulative: int, lane: int = 0) -> Claim:
        """All of such a voucher."""
        return Claim(self.voucher(client, executor, cumulative, lane), cumulative)


@dataclass
class Watched:
    """A chain as an Accounting actor has it, and what it was told."""

    chain: Chain
    writer: Writer
    seen: list[Seen] = field(default_factory=list)

    def told(self, kind: type[Event]) -> list[tuple[bool, bool]]:
        """Of every time an event of that kind was told: whether it was final, whether it was removed."""
        return [(each.final, each.removed) for each in self.seen if isinstance(each.event, kind)]

    async def state(self, job: int) -> State:
        return (await self.writer.write(lambda db: transactions.ended(db, job), 1))[0]

    async def attempts(self, job: int) -> list[Attempt]:
        return await self.writer.write(lambda db: transactions.attempts(db, job), 1)


@contextlib.asynccontextmanager
async def watching(
    path: Path,
    settings: Settings,
    identity: Identity | None,
    urls: Sequence[str] | None = None,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Watched]:
    """The chain of `settings`, with its journal at `path`; nothing happens but by `step`."""
    writer = Writer(path, accounting(batch_seconds=0.001))
    await writer.open()
    writing = asyncio.create_task(writer.run())
    try:
        chain = await Chain.open("anvil", settings, identity, writer, urls or settings.rpc, clock)
        watched = Watched(chain, writer)
        chain.on_events = watched.seen.extend
        try:
            yield watched
        finally:
            await chain.close()
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await writer.close()

    async def state(self, job: int) -> State:
        return (await self.writer.write(lambda db: transactions.ended(db, job), 1))[0]

    async def attempts(self, job: int) -> list[Attempt]:
        return await self.writer.write(lambda db: transactions.attempts(db, job), 1)


class Front:
    """A server in front of a chain: it passes on what it is asked, unless it is told to misbehave."""

    def __init__(self, behind: str) -> None:
        self.behind = behind
        self.calls: list[str] = []
        self.answers: dict[str, Any] = {}
        """By method: what is said instead; an Exception is an error of JSON-RPC, a callable gets params and the true answer."""
        self.status = 200
        self.heard = asyncio.Event()
        """Set by every call."""
        self.silent = asyncio.Event()
        self.silent.set()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        question = await request.json()
        self.calls.append(question["method"])
        self.heard.set()
        await self.silent.wait()
        if self.status != 200:
            return web.Response(status=self.status, text="no")
        said = self.answers.get(question["method"])
        if isinstance(said, Exception):
            return web.json_response(
                {"jsonrpc": "2.0", "id": question["id"], "error": {"code": -32000, "message": str(said)}}
            )
        if said is not None and not callable(said):
            return web.json_response({"jsonrpc": "2.0", "id": question["id"], "result": said})
        async with aiohttp.ClientSession() as session, session.post(self.behind, json=question) as answer:
            found = await answer.json()
        if said is not None:
            found = said(question["params"], found)
        return web.json_response(found)


@contextlib.asynccontextmanager
async def front(behind: str) -> AsyncIterator[Front]:
    made = Front(behind)
    app = web.Application()
    app.router.add_post("/{key:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/secret-key"
    try:
        yield made
    finally:
        made.silent.set()
        await runner.cleanup()
