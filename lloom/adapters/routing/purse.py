"""A client's money on one chain, at hand where requests leave: what signs orders that are paid, and knows what is paid in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from loguru import logger
from msgspec import Struct, structs

from lloom.adapters.bridge import Connection
from lloom.adapters.payment.payables import Purchasing
from lloom.adapters.routing.lane import Lane
from lloom.adapters.routing.lanes import Lanes
from lloom.adapters.routing.pockets import NOBODYS, Pockets
from lloom.adapters.routing.purchase import Purchase, Tab
from lloom.adapters.routing.wallet import Ledger, Wallet
from lloom.core import prompt, tokens
from lloom.core.api.request import ApiRequest
from lloom.core.billing.quote import cost
from lloom.core.billing.receipt import Receipt
from lloom.core.errors import LloomError
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import SignedReceipt
from lloom.core.order import Client, Nonce, Order, Paying
from lloom.core.payment import counting
from lloom.core.pocket import Coin
from lloom.core.routing.candidate import Candidate
from lloom.core.routing.filters import Misfit

SHORT: Final = 2048
"""Bytes of a body whose tokens are counted at once; longer ones in a thread."""
SOON_SECONDS: Final = 0.25
"""Pause before a chain that told nothing is asked again: it is being opened, or away."""


class Bank(Ledger, Protocol):
    """A ledger that also knows what is paid in."""

    async def purchasing(self) -> Purchasing: ...


class Paid(Struct, frozen=True):
    """One paid answer, as those who receive it see it."""

    lanes: Lanes
    lane: Lane
    purchase: Purchase

    def arrived(self, offset: int, data: bytes) -> None:
        """More of the answer is here; `offset`: so much came before."""
        self.purchase.tally.feed(offset, data)
        self.lanes.touch(self.lane)
        self.lane.progress(self.purchase)

    def void(self) -> None:
        """The executor fails, and has said nothing."""
        self.purchase.void = True

    def over(self, arrived: int, lost: bool, counted: Callable[[], None], said: str | None = None) -> None:
        """The answer has ended after `arrived` bytes; `counted` is called when its receipt can be judged. `said`: all of it, if
        somebody has that already.
        """
        self.purchase.lost = lost
        if not arrived or self.purchase.void:  # who delivered nothing charges nothing
            self.lane.give_up(self.purchase)

        def known() -> None:
            self.lane.delivered(self.purchase)
            self.lanes.touch(self.lane)  # from now on its receipt is missing
            counted()

        self.purchase.over(known, said)

    def settle(self, signed: SignedReceipt, said: Receipt, problem: str | None) -> None:
        """The receipt of an answer that is counted, and what it says; `problem`: how it contradicts the order."""
        self.lane.settle(self.purchase, signed, said, problem or self.purchase.problem(said))
        self.lanes.touch(self.lane)


class Purse:
    """All money of one chain and token. `judge` is as for `Lanes`; `pockets`: of keys that may spend only some of it."""

    def __init__(
        self,
        wallet: Wallet,
        bank: Bank,
        judge: Callable[[NodeId, SignedReceipt], bool],
        pockets: Pockets = NOBODYS,
    ) -> None:
        self.wallet = wallet
        self.paid_in: Final = (wallet.domain.chain_id, wallet.domain.contract, wallet.token)
        """Chain, contract and token."""
        self._pockets = pockets
        self._coin = Coin(f"eip155:{wallet.domain.chain_id}/{checksum(NodeId(wallet.token))}", wallet.name)
        self.lanes = Lanes(wallet, judge)
        self.looked = asyncio.Event()
        """Whether the chain told what is paid in."""
        self._bank = bank
        self._client = Client(wallet.identity, wallet.domain)
        self._purchasing: Purchasing | None = None
        self._used = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    def problem(self) -> str | None:
        """Why nothing can be paid here; None if it can, as far as that is known."""
        found = self._purchasing
        if found is None or found.available is None:
            return f"no server of the chain {self.wallet.name} has told yet what is paid in"
        if found.available <= 0:
            return f"nothing is paid in on {self.wallet.name} that could be spent: command=deposit does that"
        return None

    def misfit(self, candidate: Candidate, chat: ApiRequest) -> Misfit | None:
        """What the key of `chat` lacks for a token at `candidate`. What it needs in all is known once the prompt is counted."""
        if chat.caller not in self._pockets:
            return None
        least = cost(candidate.quote, 1, 0, int(chat.operation != "embeddings"))
        lack = self._pockets.lack(chat.caller, self._coin, least)
        if lack is None:
            return None
        text = f"that costs more than is left to this key on {self._coin.chain} ({lack.name}: {lack.limit})"
        return Misfit("quota", text, seconds=lack.seconds)

    async def order(
        self, candidate: Candidate, chat: ApiRequest, tab: Tab, connection: Connection, ending: tuple[Nonce, int]
    ) -> tuple[Order, Paid]:
        """The order of `chat`, with a voucher where the executor has none that covers it. `ending`: its nonce, and its deadline
        in Unix seconds.

        RetryElsewhere as `Pocket.hold` and `Lane.cover`; PeerFault if the executor shows of its lane what it cannot have.
        """
        wallet = self.wallet
        self._used.set()
        count = await self._prompt(chat, candidate.terms.encoding, tab)
        most = counting.accepted(count, candidate.quote.basis, wallet.settings)
        lane = self.lanes.get(candidate.executor) or await self.lanes.open(candidate.executor, connection)
        paying = Paying(wallet.domain, lane.payable.number, most, tab.spent[self.paid_in])
        order = self._client.order(chat, candidate, *ending, paying)
        purchase = Purchase(order, candidate.place, candidate.terms.encoding, tab, wallet.settings)
        purchase.bill = self._pockets.hold(chat.caller, self._coin, order.request.max_cost)
        try:
            voucher = await lane.cover(purchase, connection)
        except BaseException:
            purchase.unbilled()
            raise
        self.lanes.touch(lane)
        if voucher is not None:
            order = structs.replace(order, call=structs.replace(order.call, voucher=voucher))
        return order, Paid(self.lanes, lane, purchase)

    def need(self, connection: Connection, number: int, cumulative: int) -> None:
        """An executor's answers wait for credit."""
        lane = self.lanes.get(connection.peer)
        if lane is not None and lane.payable.number == number:
            lane.need(cumulative, connection)

    def start(self) -> None:
        """Begins to keep an eye on what is paid in; `close` ends that."""
        self._watching = asyncio.create_task(self._watch(), name=f"purse {self.wallet.name}")

    async def _watch(self) -> None:
        """Looks as long as somebody spends something, or there is nothing."""
        while True:
            try:
                self._purchasing = await self._bank.purchasing()
            except LloomError as error:
                logger.debug("what is paid in on {} is not known: {}", self.wallet.name, error)
            if self._purchasing is None or self._purchasing.available is None:
                await asyncio.sleep(SOON_SECONDS)
                continue
            self.looked.set()
            await asyncio.sleep(self.wallet.settings.settlement.check_seconds)
            if self.problem() is None:
                await self._used.wait()
                self._used.clear()

    async def close(self) -> None:
        """As `Lanes.close`."""
        await self.lanes.close()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _prompt(self, chat: ApiRequest, encoding: str, tab: Tab) -> int:
        """Tokens of the prompt; only a long one, or an encoding that is not loaded yet, makes anybody wait."""
        encoding = counting.known(encoding)
        if not tokens.loaded(encoding):
            await asyncio.to_thread(tokens.count, "", encoding)
        if encoding not in tab.prompts:
            if len(chat.body) <= SHORT:
                tab.prompts[encoding] = prompt.count(chat.operation, chat.body, encoding)
            else:
                tab.prompts[encoding] = await asyncio.to_thread(prompt.count, chat.operation, chat.body, encoding)
        return tab.prompts[encoding]
