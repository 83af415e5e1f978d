"""The accounting actor of one chain as a client's purse asks it. It keeps nothing but receipts that are on their way there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from lloom.actors.outbox import Outbox
from lloom.actors.place import Place
from lloom.adapters.payment.payables import Purchasing
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId
from lloom.core.parcel import Judgements
from lloom.core.payment.payable import Judged, LaneEntry
from lloom.core.payment.promises import Ask, Raised

ASK_SECONDS: Final = 10.0


class Bank:
    """Made in a running loop; `close` when nothing is put in any more. RetryElsewhere from its methods: the actor is away."""

    def __init__(self, place: Place, chain: str) -> None:
        self._place = place
        self._actor = f"accounting-{chain}"
        self._outbox: Outbox[Judged] = Outbox(f"receipts paid on {chain}", self._keep, place.settings.accounting)

    def keep(self, judged: Judged) -> None:
        """Has a receipt journaled, soon."""
        self._outbox.put(judged)

    async def lane(self, executor: NodeId) -> LaneEntry | None:
        """As `Payables.lane`."""
        found: LaneEntry | None = await self._ask("lane_entry", executor)
        return found

    async def adopt(self, executor: NodeId, entry: LaneEntry) -> LaneEntry:
        """As `Payables.adopt`."""
        adopted: LaneEntry = await self._ask("adopt", executor, entry)
        return adopted

    async def raise_ceiling(self, ask: Ask) -> Raised:
        """As `Payables.raise_ceiling`."""
        raised: Raised = await self._ask("raise_ceiling", ask)
        return raised

    async def purchasing(self) -> Purchasing:
        """As `Payables.purchasing`."""
        found: Purchasing = await self._ask("purchasing")
        return found

    async def close(self) -> None:
        """Waits until all receipts are journaled, as `Outbox.close`."""
        await self._outbox.close()

    async def _keep(self, items: Sequence[Judged]) -> None:
        await self._ask("keep_judged", Judgements(items))

    async def _ask(self, method: str, *arguments: Any) -> Any:
        try:
            return await self._place.ask(self._actor, method, *arguments, seconds=ASK_SECONDS)
        except RetryElsewhere as error:
            # Ray's stand-in for an error of another process says the whole traceback where a user expects a sentence.
            cause = getattr(error, "cause", None)
            raise cause if isinstance(cause, RetryElsewhere) else error from None
