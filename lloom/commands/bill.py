"""The money of the demo: pays in for its client, redeems what it owes, says what became of it. None of it is worth anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from lloom.actors.accounting import journal_path
from lloom.adapters.chain import anvil, banking
from lloom.adapters.chain.contract import Contract, settlement, text
from lloom.adapters.chain.gas import Transaction
from lloom.adapters.chain.rpc import Rpc
from lloom.adapters.chain.wallet import Mined, Wallet
from lloom.adapters.journal import history, lanes
from lloom.adapters.journal.lanes import Owing
from lloom.adapters.journal.reading import reading
from lloom.core.identity import Identity, NodeId, checksum, parse_address
from lloom.core.payment import units
from lloom.core.payment.domain import token_of
from lloom.core.payment.usage import Row, rows
from lloom.core.payment.voucher import Claim
from lloom.core.settings import Chain
from lloom.node import Node

GAS_MONEY: Final = 10**18
"""What each demo node gets for gas, beside what the client pays in."""
LOOK_SECONDS: Final = 0.2
VOUCHER_SECONDS: Final = 20.0
"""The last voucher comes once a lane was idle (accounting.closing_seconds)."""


class Balances(Struct, frozen=True):
    """In smallest units of the token: what the client has in the contract, what the executor has earned there."""

    client: int
    executor: int


class Bill(Struct, frozen=True):
    """What one executor was paid for, and how. `voucher`: what it was promised."""

    executor: NodeId
    row: Row
    voucher: int
    settled: Mined
    before: Balances
    after: Balances


class Teller:
    """Moves the demo's money on one chain."""

    def __init__(self, name: str, chain: Chain, rpc: Rpc, client: Identity) -> None:
        assert chain.contract is not None
        self._name = name
        self._chain = chain
        self._rpc = rpc
        self._client = client
        self._token = token_of(chain)
        self._contract = Contract(rpc, parse_address(chain.contract))

    async def pay_in(self, amount: int, nodes: Sequence[Identity]) -> None:
        """Gives everybody coins for gas, and pays `amount` into the client's account."""
        for node in nodes:
            more = amount if node is self._client else 0
            await anvil.fund(self._name, self._chain, node.address, GAS_MONEY + more)
        await banking.deposit(Wallet(self._rpc, self._chain, self._client), self._contract.address, self._token, amount)

    async def collect(self, node: Node) -> Bill | None:
        """Redeems what the client owes an executor; None if that is nothing."""
        path = journal_path(node.settings, self._name, node.identity.address)
        owing = await self._owing(path)
        if owing is None:
            return None
        with reading(path) as db:
            assert db is not None
            (row,) = rows(history.receipts(db, self._name, lambda _: "", gave=True), "chain")
        executor = node.identity.address
        before = await self._balances(executor)
        settled = await self._redeem(node.identity, owing.claim)
        return Bill(executor, row, owing.state.vouched, settled, before, await self._balances(executor))

    def text(self, bill: Bill, price: tuple[int, int]) -> str:
        """For people. `price`: of a million tokens of the prompt, and of the answer."""
        show = self._show
        row, before, after = bill.row, bill.before, bill.after
        lines = (
            ("served", f"{row.input_tokens} + {row.output_tokens} tokens by {checksum(bill.executor)}"),
            ("price", f"{show(price[0])} + {show(price[1])} for a million"),
            ("charged", f"{show(row.cost)}, by a signed receipt"),
            ("voucher", f"up to {show(bill.voucher)}, signed by {checksum(self._client.address)}"),
            ("settled", f"{show(after.executor - before.executor)}, by {text(bill.settled.hash)}"),
            ("", f"in block {bill.settled.block} of {self._name}, for {bill.settled.gas:,} gas"),
            ("client", f"{show(before.client)} → {show(after.client)} in the contract"),
            ("executor", f"{show(before.executor)} → {show(after.executor)} earned there"),
        )
        return "Bill\n" + "".join(f"  {name:<9} {what}\n" for name, what in lines)

    async def _redeem(self, executor: Identity, claim: Claim) -> Mined:
        data = settlement(executor.address, self._token, [claim])
        wallet = Wallet(self._rpc, self._chain, executor)
        return await wallet.send(Transaction(self._contract.address, data), "redeeming the voucher")

    async def _owing(self, path: Path) -> Owing | None:
        """The executor's only lane, once its last voucher is there and tells of all that was served; None if it has none."""
        found = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(VOUCHER_SECONDS):
                while _lanes(path) and (found is None or not found.voucher.usages):
                    await asyncio.sleep(LOOK_SECONDS)
                    found = _lane(path)
        return found

    async def _balances(self, executor: NodeId) -> Balances:
        funds = await self._contract.funds(self._client.address, self._token)
        return Balances(funds.balance, await self._contract.earned(executor, self._token))

    def _show(self, amount: int) -> str:
        return f"{units.show(amount, self._chain.decimals)} {self._chain.symbol}"


@contextlib.asynccontextmanager
async def teller(name: str, chain: Chain, client: Identity) -> AsyncIterator[Teller]:
    """One for the demo's chain."""
    rpc = Rpc.open(name, chain, chain.rpc)
    try:
        await rpc.survey()
        yield Teller(name, chain, rpc, client)
    finally:
        await rpc.close()


def _lanes(path: Path) -> int:
    with reading(path) as db:
        return lanes.count(db) if db is not None else 0


def _lane(path: Path) -> Owing | None:
    with reading(path) as db:
        found = lanes.owing(db) if db is not None else []
    return found[0] if found else None
