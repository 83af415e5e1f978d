"""One transaction at a time for somebody who waits for it: commands, and the set-up of a demo. It journals nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from lloom.adapters.chain import gas
from lloom.adapters.chain.answers import Receipt, amount, count, receipt
from lloom.adapters.chain.contract import explained, text
from lloom.adapters.chain.gas import Transaction
from lloom.adapters.chain.rpc import ChainAway, Refused, Rpc
from lloom.core.errors import LloomError
from lloom.core.identity import Identity, checksum
from lloom.core.payment import units
from lloom.core.payment.fees import within
from lloom.core.settings import Chain

WAIT_BLOCKS: Final = 60
WAIT_SECONDS: Final = 120.0
"""How long a transaction is waited for: so many blocks, and at least this."""
_FASTEST, _SLOWEST = 0.1, 2.0
"""Pause between two looks for a receipt."""

Say = Callable[[str], None]


class Mined(Struct, frozen=True):
    """A transaction that is part of the chain and did its work. `paid`: for gas and bytes, smallest units of the coin."""

    hash: bytes
    block: int
    gas: int
    paid: int


class Wallet:
    """Sends in the name of `identity`; the chain itself keeps count of its nonces."""

    def __init__(self, rpc: Rpc, settings: Chain, identity: Identity, say: Say = lambda _: None) -> None:
        self.rpc = rpc
        self.identity = identity
        self._settings = settings
        self._say = say

    @property
    def address(self) -> bytes:
        """Whose money is spent."""
        return self.identity.address

    async def coin(self) -> int:
        """What the address has for gas, and to pay in."""
        return await self.rpc.ask(amount, "eth_getBalance", text(self.address), "latest")

    async def send(self, what: Transaction, purpose: str) -> Mined:
        """Sends and waits until it is mined. LloomError says why it cannot be, or that it is not yet."""
        try:
            limit = await gas.needed(self.rpc, self.address, what)
        except Refused as error:
            raise LloomError(await self._unable(purpose, what, error)) from error
        now = await gas.market(self.rpc)
        fees = within(now.fees, now.base_fee, self._settings.max_fee)
        if fees is None:
            raise LloomError(
                f"{purpose}: gas costs {units.show(now.base_fee, units.GWEI)} gwei on {self.rpc.name} now, and "
                f"chain.{self.rpc.name}.max_fee allows {units.show(self._settings.max_fee, units.GWEI)}"
            )
        nonce = await self.rpc.ask(count, "eth_getTransactionCount", text(self.address), "pending")
        made = gas.signed(self.identity, self._settings.id, what, nonce, limit, fees)
        try:
            await self.rpc.call("eth_sendRawTransaction", text(made.raw))
        except Refused as error:
            if not await self._taken(made.hash, error):
                raise LloomError(await self._unable(purpose, what, error)) from error
        except ChainAway as error:  # a server may have taken it and not said so: who is told of a failure pays twice
            self._say(f"{purpose}: {error} It may have been taken all the same, so it is waited for")
        self._say(f"{purpose}: sent {text(made.hash)}")
        return await self.mined(made.hash, purpose)

    async def _taken(self, sent: bytes, error: Refused) -> bool:
        """Whether it is there, or may be, although a server refused it: one before that took it and fell silent."""
        if "nonce too low" in error.reason:
            return await self.rpc.ask(receipt, "eth_getTransactionReceipt", text(sent)) is not None
        return error.known or error.unsure

    async def mined(self, sent: bytes, purpose: str) -> Mined:
        """Waits until a transaction is mined and did its work; LloomError if it failed, or takes too long."""
        seconds = max(WAIT_SECONDS, WAIT_BLOCKS * self._settings.block_seconds)
        try:
            async with asyncio.timeout(seconds):
                found = await self._receipt(sent)
        except TimeoutError:
            raise LloomError(f"{purpose}: {text(sent)} is not mined after {seconds:.0f} s; it may still be") from None
        if not found.worked:
            raise LloomError(f"{purpose}: {text(sent)} failed on chain; it cost {found.gas} gas")
        return Mined(sent, found.block, found.gas, found.gas * found.price + found.l1_fee)

    async def _receipt(self, sent: bytes) -> Receipt:
        """For as long as it takes, also while no server answers, or all are too busy."""
        pause = min(max(self._settings.block_seconds / 4, _FASTEST), _SLOWEST)
        while True:
            with contextlib.suppress(ChainAway, Refused):
                found = await self.rpc.ask(receipt, "eth_getTransactionReceipt", text(sent))
                if found is not None:
                    return found
            await asyncio.sleep(pause)

    async def _unable(self, purpose: str, what: Transaction, error: Refused) -> str:
        """Lack of coin is told first: servers word it in many ways."""
        has = await self.coin()
        if has <= what.value:
            return (
                f"{purpose}: {checksum(self.identity.address)} has {units.show(has, 18)} of {self.rpc.name}'s coin, "
                f"which does not pay {f'{units.show(what.value, 18)} and ' if what.value else ''}the gas"
            )
        return f"{purpose}: {explained(error)}"
