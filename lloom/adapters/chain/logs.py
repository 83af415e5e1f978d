"""The contract's logs, fetched in ranges that servers take. It keeps nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from loguru import logger
from msgspec import Struct

from lloom.adapters.chain.answers import count, data, word
from lloom.adapters.chain.contract import text
from lloom.adapters.chain.head import block_at
from lloom.adapters.chain.rpc import ChainAway, Refused, Rpc
from lloom.adapters.journal.sightings import Log
from lloom.core.eip712 import WORD
from lloom.core.payment.events import Block, Seen, decode

FIRST_SPAN: Final = 1_000
LONGEST_SPAN: Final = 10_000
"""Blocks asked for at once: what a server takes is found out, and many take no more than this."""


class _Raw(Struct, frozen=True):
    """A log as it was answered; not all servers say when its block was made."""

    address: bytes
    number: int
    hash: bytes
    index: int
    transaction: bytes
    topics: bytes
    data: bytes
    time: int | None

    def log(self, first: Block, last: Block) -> Log:
        """If need be, the time is reckoned from the block's place between two others."""
        span = max(last.number - first.number, 1)
        reckoned = last.time - (last.time - first.time) * (last.number - self.number) // span
        block = Block(self.number, self.hash, reckoned if self.time is None else self.time)
        return Log(block, self.index, self.transaction, self.topics, self.data)


class Logs:
    """Of one contract. It learns how many blocks its servers take at once."""

    def __init__(self, rpc: Rpc, contract: bytes) -> None:
        self._rpc = rpc
        self._contract = contract
        self._span = FIRST_SPAN

    async def some(self, start: int, last: Block) -> tuple[Block, list[Log]]:
        """The logs from block `start` up to the one that is returned, which is `last` or, if that is far, one before it.

        Refused if no server has those of `start`; ChainAway if none answers.
        """
        while True:
            end = min(start + self._span - 1, last.number)
            mark = last if end == last.number else await self._block(end)
            try:
                found = await self._fetch(start, mark)
            except ChainAway:  # perhaps it was too much to be answered in time, and next time it would be, too
                self._span = max((end - start + 1) // 2, 1)
                raise
            except Refused:
                if end == start:
                    raise
                self._span = (end - start + 1) // 2
                continue
            self._span = min(self._span * 2, LONGEST_SPAN)
            return mark, found

    async def all(self, start: int, last: Block) -> AsyncIterator[list[Log]]:
        """The logs from block `start` to `last`, in pieces."""
        while start <= last.number:
            mark, found = await self.some(start, last)
            yield found
            start = mark.number + 1

    async def _block(self, number: int) -> Block:
        found = await block_at(self._rpc, number)
        if found is None:
            raise ChainAway(f"A server of the chain {self._rpc.name} does not know its block {number}.")
        return found

    async def _fetch(self, start: int, mark: Block) -> list[Log]:
        """One block is asked for by its hash: a server that does not know it says so, where an unknown number has no logs."""
        where = {"blockHash": text(mark.hash)}
        if start < mark.number:
            where = {"fromBlock": hex(start), "toBlock": hex(mark.number)}
        question = {"address": text(self._contract), **where}
        found = await self._rpc.ask(lambda answer: [_raw(each) for each in answer], "eth_getLogs", question)
        ours = [each for each in found if each.address == self._contract and start <= each.number <= mark.number]
        untimed = start < mark.number and any(each.time is None for each in ours)
        first = await self._block(start) if untimed else mark
        return [each.log(first, mark) for each in ours]


def seen(logs: Iterable[Log], final: int, *, removed: bool = False) -> list[Seen]:
    """The events of `logs`, those up to block `final` as final."""
    return [
        Seen(event, log.block, log.transaction, log.index, final=log.block.number <= final, removed=removed)
        for log in logs
        if (event := _event(log)) is not None
    ]


def _event(log: Log) -> Any:
    try:
        return decode([log.topics[start : start + WORD] for start in range(0, len(log.topics), WORD)], log.data)
    except ValueError as error:
        logger.warning("{} in block {}", error, log.block.number)
        return None


def _raw(found: Any) -> _Raw:
    return _Raw(
        address=data(found["address"]),
        number=count(found["blockNumber"]),
        hash=word(found["blockHash"]),
        index=count(found["logIndex"]),
        transaction=word(found["transactionHash"]),
        topics=b"".join(map(word, found["topics"])),
        data=data(found["data"]),
        time=count(found["blockTimestamp"]) if found.get("blockTimestamp") else None,
    )
