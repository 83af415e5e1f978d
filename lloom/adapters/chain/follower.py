"""Follows the contract's events from block to block, and takes them back when blocks are. It judges none of them.

A block's hash stands for all before it, so one block that is still part of the chain vouches for every log up to it. Logs are
told when they are first seen; once a block is final, the logs up to it are fetched anew, and what that shows is told as final. It
is journaled after it was told: a crash has some events told twice, and none lost.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

from loguru import logger

from lloom.adapters.chain import logs
from lloom.adapters.chain.head import Head, block_at
from lloom.adapters.chain.rpc import ChainAway, Refused, Rpc
from lloom.adapters.journal import sightings
from lloom.adapters.journal.sightings import Log
from lloom.adapters.journal.writer import Writer
from lloom.core.payment.events import Block, Seen

MARKS: Final = 64
"""Steps that can be taken back although their blocks were final: where the newest block is, tests do that."""
LOGS_KEPT: Final = 1_000
"""Blocks before those whose events are told again after a restart, should a crash have kept them from whom they concern."""

Tell = Callable[[Sequence[Seen]], None]


class Follower:
    """`load` once; then one task calls `step` again and again."""

    def __init__(self, rpc: Rpc, contract: bytes, writer: Writer, tell: Tell) -> None:
        self._rpc = rpc
        self._reader = logs.Logs(rpc, contract)
        self._writer = writer
        self._tell = tell
        self._marks: list[Block] = []
        """Blocks up to which all was read, lowest first."""
        self._logs: list[Log] = []
        """Those that may be taken back, and some more, in the chain's order."""
        self._final = -1
        """Up to this block everything was told as final."""

    async def load(self) -> None:
        """Goes on where the last run stopped, and tells its last events again."""
        self._marks, self._logs, facts = await self._writer.write(_kept, 1)
        self._final = int.from_bytes(facts.get("final", b""), "big") if self._marks else -1
        self._say(logs.seen(self._logs, self._final))

    async def step(self, head: Head) -> None:
        """Reads up to `head`. ChainAway or Refused if no server can say: call it again later."""
        if self._marks:
            await self._take_back(await self._common(head))
        if not self._marks:
            await self._begin(head)
        while self._marks[-1].number < head.block.number:
            await self._advance(head)
        while self._final < head.final:
            await self._confirm(head.final)

    async def _begin(self, head: Head) -> None:
        """From now on: what happened before is read from the contract's state, not from its events."""
        first = await block_at(self._rpc, head.final)
        if first is None:
            raise ChainAway(f"A server of the chain {self._rpc.name} does not know its final block.")
        self._final = first.number
        await self._keep(first, [])

    async def _common(self, head: Head) -> int:
        """The number of the highest block that was read and still is part of the chain; -1: none is."""
        for mark in reversed(self._marks):
            if mark.hash in (head.block.hash, head.parent):
                return mark.number
            if mark.number < head.block.number:
                found = await block_at(self._rpc, mark.number)
                if found is not None and found.hash == mark.hash:
                    return mark.number
        return -1

    async def _take_back(self, above: int) -> None:
        """Tells that what was read of larger numbers is not part of the chain."""
        if self._marks[-1].number <= above:
            return
        gone = [log for log in self._logs if log.block.number > above]
        logger.log(
            "WARNING" if gone else "DEBUG",
            "{}: the chain was rewritten after block {}; {} events are taken back",
            self._rpc.name,
            max(above, self._marks[0].number - 1),
            len(gone),
        )
        self._say(logs.seen(reversed(gone), self._final, removed=True))
        await self._writer.write(lambda db: sightings.take_back(db, above), len(gone) + 1)
        self._marks = [mark for mark in self._marks if mark.number <= above]
        self._logs = [log for log in self._logs if log.block.number <= above]
        self._final = min(self._final, above)

    async def _advance(self, head: Head) -> None:
        """Reads the next blocks."""
        start = self._marks[-1].number + 1
        try:
            mark, found = await self._reader.some(start, head.block)
        except Refused as error:
            if start > head.final:
                raise
            await self._skip(start, head, error)
            return
        if mark.number <= head.final and start == self._final + 1:
            self._final = mark.number
        self._logs += found
        self._say(logs.seen(found, self._final))
        await self._keep(mark, found)

    async def _skip(self, start: int, head: Head, error: Refused) -> None:
        """Nobody keeps logs for so long; state is read from the contract, so only the account of the past has a gap."""
        logger.warning(
            "{}: no server has the events from block {} on any more ({}); they are followed from block {} on",
            self._rpc.name,
            start,
            error.reason,
            head.final,
        )
        self._marks = []
        await self._begin(head)

    async def _confirm(self, final: int) -> None:
        """Tells what is final by now as the servers have it now: at the head it may have come from another branch."""
        start = self._final + 1
        last = await block_at(self._rpc, final)
        if last is None:
            raise ChainAway(f"A server of the chain {self._rpc.name} does not know its final block.")
        mark, found = await self._reader.some(start, last)
        there = set(map(_name, found))
        within = [log for log in self._logs if start <= log.block.number <= mark.number]
        wrong = [log for log in within if _name(log) not in there]
        self._final = mark.number
        self._say([*logs.seen(wrong, start - 1, removed=True), *logs.seen(found, mark.number)])
        self._logs = sorted(
            [*(log for log in self._logs if not start <= log.block.number <= mark.number), *found],
            key=lambda log: (log.block.number, log.index),
        )
        await self._keep(mark, found, wrong)

    async def _keep(self, mark: Block, found: Sequence[Log], wrong: Sequence[Log] = ()) -> None:
        """Journals what was read up to `mark`, and gives up what can neither be taken back nor is told again."""
        if mark not in self._marks:
            self._marks = sorted([*self._marks, mark], key=lambda each: each.number)
        below = [each.number for each in self._marks if each.number <= self._final]
        lowest = min(below[-1], self._marks[-MARKS:][0].number) if below else self._marks[0].number
        final = self._final

        def work(db: sqlite3.Connection) -> None:
            sightings.remove(db, wrong)
            sightings.keep(db, mark, found)
            sightings.note(db, "final", final.to_bytes(8, "big"))
            sightings.prune(db, lowest, lowest - LOGS_KEPT)

        await self._writer.write(work, len(found) + len(wrong) + 2)
        self._marks = [each for each in self._marks if each.number >= lowest]
        self._logs = [log for log in self._logs if log.block.number >= lowest - LOGS_KEPT]

    def _say(self, events: Sequence[Seen]) -> None:
        if events:
            self._tell(events)


def _kept(db: sqlite3.Connection) -> tuple[list[Block], list[Log], dict[str, bytes]]:
    return sightings.blocks(db), sightings.logs(db), sightings.facts(db)


def _name(log: Log) -> tuple[bytes, int]:
    return log.block.hash, log.index
