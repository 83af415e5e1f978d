"""The paying part of an accounting actor, which purses ask over Ray. It only hands on (adapters/payment/payables.py)."""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from lloom.actors.base import Actor
from lloom.adapters.journal.writer import Writer
from lloom.adapters.payment.payables import Payables, Purchasing
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity, NodeId
from lloom.core.payment.domain import paying, token_of
from lloom.core.payment.payable import Judged, LaneEntry
from lloom.core.payment.promises import Ask, Raised


class Paying(Actor):
    """Answers once `paying` was called; RetryElsewhere until then, and while the journal is away."""

    _payables: Payables | None = None

    def paying(self, chain: str, identity: Identity, writer: Writer) -> Sequence[Coroutine[Any, Any, None]]:
        """What is to be done, beside running `writer`, where `identity` pays on `chain` (empty: nobody does)."""
        settings = self.place.settings
        if chain not in paying(settings):
            return ()
        paid_in = token_of(settings.chain[chain])
        self._payables = Payables(identity.address, paid_in, writer, settings.accounting)
        return self._follow(chain, writer, self._payables), self._payables.follow()

    async def lane_entry(self, executor: NodeId) -> LaneEntry | None:
        """As `Payables.lane`."""
        return await self._purchases().lane(executor)

    async def adopt(self, executor: NodeId, entry: LaneEntry) -> LaneEntry:
        """As `Payables.adopt`."""
        return await self._purchases().adopt(executor, entry)

    async def raise_ceiling(self, ask: Ask) -> Raised:
        """As `Payables.raise_ceiling`."""
        return await self._purchases().raise_ceiling(ask)

    async def keep_judged(self, items: Sequence[Judged]) -> None:
        """As `Payables.keep`."""
        await self._purchases().keep(items)

    async def purchasing(self) -> Purchasing:
        """As `Payables.purchasing`."""
        return await self._purchases().purchasing()

    async def _follow(self, chain: str, writer: Writer, payables: Payables) -> None:
        """Opens the chain and follows it; a client sends nothing from here."""
        from lloom.adapters.chain.chain import Chain  # web3 takes a second and 60 MB: who does not pay does without
        from lloom.adapters.chain.rpc import urls

        settings = self.place.settings.chain[chain]
        opened = await Chain.open(chain, settings, None, writer, urls(settings, self.place.provider_keys()))
        try:
            opened.on_events = payables.heard
            payables.contract = opened
            self.up(f"pays on {chain}")
            await opened.run()
        finally:
            payables.contract = self._payables = None
            await opened.close()

    def _purchases(self) -> Payables:
        if self._payables is None:
            raise RetryElsewhere("Accounting is not ready yet.", status=503, code="accounting_away", retry_after=1)
        return self._payables
