"""Which nonces the chain has used, and which one is next. It gives none away: who signs with one journals that."""

from __future__ import annotations

from msgspec import Struct

from lloom.adapters.chain.answers import count
from lloom.adapters.chain.contract import text
from lloom.adapters.chain.rpc import Rpc
from lloom.adapters.journal import transactions
from lloom.adapters.journal.writer import Writer


class Counts(Struct, frozen=True):
    """How many nonces were used: in the newest block, with what waits at the server, and in final blocks."""

    latest: int
    pending: int
    final: int


class Nonces:
    """Of one sender on one chain."""

    def __init__(self, rpc: Rpc, finality: str, sender: bytes, writer: Writer) -> None:
        self._rpc = rpc
        self._finality = finality
        self._sender = sender
        self._writer = writer

    async def counts(self) -> Counts:
        """As the server has them now."""
        latest = await self._count("latest")
        final = latest if self._finality == "latest" else await self._count(self._finality)
        return Counts(latest, await self._count("pending"), final)

    async def next(self) -> int:
        """The lowest one that neither the chain nor any job has: gaps fill by themselves."""
        counts = await self.counts()
        held, after_final = await self._writer.write(transactions.nonces, 1)
        # A server may be behind what we know to be final; but where the newest block is, a test may have taken it back.
        first = counts.latest if self._finality == "latest" else max(counts.latest, after_final)
        free = _lowest(first, held)
        # What waits at the server and is not ours is somebody else's who has our key.
        return free if free >= counts.pending else _lowest(counts.pending, held)

    async def held(self, nonce: int) -> bool:
        """Whether one of our jobs has it."""
        held, _ = await self._writer.write(transactions.nonces, 1)
        return nonce in held

    async def _count(self, at: str) -> int:
        return await self._rpc.ask(count, "eth_getTransactionCount", text(self._sender), at)


def _lowest(first: int, held: set[int]) -> int:
    while first in held:
        first += 1
    return first
