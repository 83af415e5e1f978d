"""What the commands that talk to a chain share: who acts, on which servers, and how amounts are shown."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from lloom.adapters.chain import deployment, rpc
from lloom.adapters.chain.contract import Contract, text
from lloom.adapters.chain.head import newest
from lloom.adapters.chain.rpc import ChainAway, Refused, Rpc
from lloom.adapters.chain.wallet import Mined, Wallet
from lloom.adapters.machine import keystore
from lloom.adapters.machine.terminal import show
from lloom.core.errors import LloomError
from lloom.core.identity import Identity, NodeId, checksum, parse_address
from lloom.core.payment import units
from lloom.core.payment.domain import token_of
from lloom.core.payment.funds import Funds
from lloom.core.settings import Chain, Settings
from lloom.core.visitors import payer

PLAY_MONEY: Final = 10**19
"""What an address without coins is given on a chain for tests."""
COIN_DECIMALS: Final = 18
FOREIGN_KEY: Final = "PRIVATE_KEY"
"""The variable that other tools for contracts read."""


class Counter(Struct, frozen=True):
    """Where one person does business with the contract of one chain."""

    name: str
    chain: Chain
    wallet: Wallet

    @property
    def address(self) -> NodeId:
        """The contract."""
        assert self.chain.contract is not None
        return parse_address(self.chain.contract)

    @property
    def contract(self) -> Contract:
        """To ask it."""
        return Contract(self.wallet.rpc, self.address)

    @property
    def token(self) -> NodeId:
        """What is paid in."""
        return token_of(self.chain)

    async def funds(self) -> Funds:
        """The person's account as a client."""
        return await self.contract.funds(self.wallet.address, self.token)

    async def now(self) -> int:
        """The chain's time, Unix seconds."""
        return (await newest(self.wallet.rpc, self.chain)).block.time

    def amount(self, smallest: int) -> str:
        """So many smallest units of the token, for people."""
        return f"{units.show(smallest, self.chain.decimals)} {self.chain.symbol}"

    def cost(self, sent: Mined) -> str:
        """What a transaction cost, for people."""
        unit = self.chain.symbol if self.chain.token is None else "of the coin"
        return f"{sent.gas} gas, {units.show(sent.paid, COIN_DECIMALS)} {unit}"


def urls(chain: Chain) -> tuple[str, ...]:
    """The servers of `chain`; the user's own comes first."""
    return rpc.urls(chain, os.environ)


def foreign_key(settings: Settings) -> Settings:
    """The same settings, with the key from PRIVATE_KEY where only that is set."""
    identity = settings.identity
    if os.environ.get(identity.key_env) or not os.environ.get(FOREIGN_KEY):
        return settings
    return replace(settings, identity=replace(identity, key_env=FOREIGN_KEY))


Told = dict[str, Any]
"""What a command did, for programs."""


def on_every_chain(
    settings: Settings, do: Callable[[Counter], Awaitable[Told]], *, deployed: bool = True
) -> list[Told]:
    """What `do` returns for every chosen chain, one after another. `deployed`: the contract has to be there."""
    identity = keystore.load(settings.identity, os.environ)
    if deployed:  # who deploys does it for everybody; else a validator acts as its purse
        identity = payer(identity, settings)
    ready = deployment.resolved(settings)

    async def all_of_them() -> list[Told]:
        found = []
        for name, chain in ready.chain.items():
            async with _counter(name, chain, identity) as counter:
                if deployed:
                    await deployment.check(counter.wallet.rpc, counter.address)
                found.append(await do(counter))
        return found

    return asyncio.run(all_of_them())


def say(line: str) -> None:
    """Progress, for people: on standard error."""
    show(line + "\n")


def print_json(found: Any) -> None:
    """The result, for programs."""
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")


def told(sent: Mined) -> Told:
    """A transaction, for programs. Amounts are text: they are larger than the numbers of most JSON readers."""
    return {"transaction": text(sent.hash), "block": sent.block, "gas": sent.gas, "gas_cost": str(sent.paid)}


@contextlib.asynccontextmanager
async def _counter(name: str, chain: Chain, identity: Identity) -> AsyncIterator[Counter]:
    servers = Rpc.open(name, chain, urls(chain))
    try:
        await _survey(servers, name, chain)
        counter = Counter(name, chain, Wallet(servers, chain, identity, say))
        if chain.local and not await counter.wallet.coin():
            await _give(counter)
        yield counter
    finally:
        await servers.close()


async def _survey(servers: Rpc, name: str, chain: Chain) -> None:
    try:
        await servers.survey()
    except ChainAway as error:
        if not chain.local:
            raise
        raise LloomError(f"{error} A node with chain={name} starts one that lives as long as it does.") from error


async def _give(counter: Counter) -> None:
    """On a chain for tests money is worth nothing."""
    with contextlib.suppress(Refused):  # a chain for tests that is no anvil
        await counter.wallet.rpc.call("anvil_setBalance", text(counter.wallet.address), hex(PLAY_MONEY))
        who = checksum(counter.wallet.identity.address)
        say(f"{who} has no coin; this is a chain for tests, so it is given {units.show(PLAY_MONEY, COIN_DECIMALS)}")
