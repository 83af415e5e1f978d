"""All the money of a client: a purse for each chain it can pay on. It never converts one into another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from lloom.adapters.bridge import Connection
from lloom.adapters.routing.purse import Purse
from lloom.core.api.request import ApiRequest
from lloom.core.messages import Need, amount
from lloom.core.offer import Payment
from lloom.core.routing.candidate import Candidate
from lloom.core.routing.filters import NO_CHAIN, Misfit

_Way = tuple[int, bytes, bytes]


class Purses:
    """Found by chain, contract and token: money for one of them is worth nothing at another."""

    def __init__(self, purses: Iterable[Purse] = ()) -> None:
        self._purses: dict[_Way, Purse] = {purse.paid_in: purse for purse in purses}

    def of(self, payment: Payment) -> Purse | None:
        """What pays in this way, None if nothing does."""
        return self._purses.get((payment.chain, payment.contract, payment.token))

    def problem(self, payment: Payment) -> str | None:
        """Why nothing can be paid in this way, as the end of "an executor that …"; None if it can."""
        if not self._purses:
            return NO_CHAIN
        purse = self.of(payment)
        if purse is not None:
            problem = purse.problem()
            return None if problem is None else f"costs money, but {problem}"
        if payment.chain not in {chain for chain, _, _ in self._purses}:
            return f"is paid on the chain eip155:{payment.chain}, which this node does not have: add it (chain=…)"
        return f"is paid through another contract or in another token of eip155:{payment.chain} than this node"

    def misfit(self, candidate: Candidate, request: ApiRequest) -> Misfit | None:
        """The `Problem` of routing: also what the key lacks that `request` comes with."""
        payment = candidate.payment
        assert payment is not None
        purse = self.of(payment)
        if purse is None or purse.problem() is not None:
            return Misfit("payment", f"that {self.problem(payment)}")
        return purse.misfit(candidate, request)

    def figures(self) -> dict[str, float]:
        """All lanes in numbers (adapters/figures)."""
        payables = [lane.payable for purse in self._purses.values() for lane in purse.lanes]
        return {
            "lanes_open": len(payables),
            "lanes_disputed": sum(len(each.left_out) for each in payables),
        }

    def on_need(self, connection: Connection, need: Need) -> None:
        """An executor's answers wait for credit."""
        for (chain, _, token), purse in self._purses.items():
            if (chain, token) == (need.chain, need.token):
                purse.need(connection, need.lane, amount(need.cumulative))

    def start(self) -> None:
        """As `Purse.start`."""
        for purse in self._purses.values():
            purse.start()

    async def looked(self) -> None:
        """Returns once every chain was asked what is paid in."""
        for purse in self._purses.values():
            await purse.looked.wait()

    async def close(self) -> None:
        """As `Purse.close`, all at once."""
        await asyncio.gather(*(purse.close() for purse in self._purses.values()))


NONE = Purses()
"""A node without money."""
