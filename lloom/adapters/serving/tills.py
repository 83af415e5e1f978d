"""A Worker's tills by their chains, and which of them a voucher is for. It has none where nobody pays."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from loguru import logger

from lloom.adapters.bridge import Connection
from lloom.adapters.serving.till import Till
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.messages import Control, SignedVoucher


class Tills:
    """One till for each chain that this executor is paid on."""

    def __init__(self, tills: Sequence[Till] = ()) -> None:
        self._tills = {till.domain.chain_id: till for till in tills}

    def at(self, chain: int) -> Till:
        """The till of a chain (EIP-155). RetryElsewhere (402) if nobody is paid there."""
        found = self._tills.get(chain)
        if found is None:
            raise RetryElsewhere(
                f"This executor is not paid on the chain {chain}.", status=402, code="payment_required"
            )
        return found

    def on_control(self, connection: Connection, message: Control) -> None:
        """Takes vouchers that clients send beside their calls. PeerFault if one is good on no chain of ours."""
        if isinstance(message, SignedVoucher) and self._tills:
            try:
                self._take(connection, message)
            except PeerFault:
                raise
            except RetryElsewhere as error:
                logger.debug("a voucher was dropped: {}", error)

    async def run(self) -> None:
        """All of them, for ever."""
        async with asyncio.TaskGroup() as group:
            for till in self._tills.values():
                group.create_task(till.run())
            await asyncio.Event().wait()

    async def close(self) -> None:
        """Hands in what they still have."""
        await asyncio.gather(*(till.close() for till in self._tills.values()))

    def _take(self, connection: Connection, signed: SignedVoucher) -> None:
        """A voucher does not name its chain: its signature is good on one only, most likely where its lane is in use."""
        *likely, last = sorted(self._tills.values(), key=lambda till: not till.holds(signed))
        for till in likely:
            try:
                return till.take(connection.peer, signed)
            except PeerFault as fault:
                if fault.code != "bad_signature":
                    raise
        return last.take(connection.peer, signed)


NO_TILLS: Final = Tills()
