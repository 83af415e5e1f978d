"""Sends jobs to the contract so that each arrives once, whatever dies on the way. It decides neither what nor when.

Rules: a job's nonce, exact bytes and hash are on the disk before they are broadcast, and the same bytes go out again after a
crash. A nonce is given up only when somebody else used it, or nothing can ever come before it. All hashes of a job are
watched until one is final; until then a block that is taken back brings the job back.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from loguru import logger
from msgspec.structs import replace

from lloom.adapters.chain import gas
from lloom.adapters.chain.answers import Receipt, amount, receipt
from lloom.adapters.chain.contract import Contract, explained, text
from lloom.adapters.chain.gas import Transaction
from lloom.adapters.chain.head import Head
from lloom.adapters.chain.nonces import Counts, Nonces
from lloom.adapters.chain.oracle import Oracle
from lloom.adapters.chain.rpc import Refused, Rpc
from lloom.adapters.journal import transactions
from lloom.adapters.journal.transactions import Attempt, Claim, Job, State
from lloom.adapters.journal.writer import Writer
from lloom.core.identity import Identity, checksum
from lloom.core.payment import units
from lloom.core.payment.fees import Fees, cap_of, replacement, within
from lloom.core.payment.voucher import MAX_AMOUNT
from lloom.core.settings import Chain

IN_FLIGHT: Final = 4
"""Transactions that may wait for a block at once: servers keep few of one sender, and one that is stuck holds up the others."""
PATIENCE_BLOCKS: Final = 3
PATIENCE_SECONDS: Final = 30.0
"""So many blocks, and at least so long, a transaction may wait before it is replaced by a dearer one."""
FAILURES: Final = 3
"""So often a transaction may fail on chain before its job is dropped."""
LOOKS: Final = 2
"""So often in a row a nonce has to look used by somebody else: servers behind one URL are not always equally far."""
_MILLION: Final = 1_000_000


class Sender:
    """Its `step` is called again and again by one task; jobs may be added by others meanwhile."""

    def __init__(
        self,
        rpc: Rpc,
        settings: Chain,
        identity: Identity,
        writer: Writer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rpc = rpc
        self._settings = settings
        self._identity = identity
        self._writer = writer
        self._clock = clock
        self._oracle = Oracle(rpc, settings)
        self._nonces = Nonces(rpc, settings.finality, identity.address, writer)
        self._used: Counter[int] = Counter()
        """By job: how often in a row its nonce looked used by somebody else."""
        self._told: dict[int, str] = {}
        """By job: what was last said of it, so that it is said once."""
        self._later: dict[int, float] = {}
        """By job that could not be sent: when it is tried again."""

    async def add(self, contract: bytes, data: bytes, claims: list[Claim]) -> int:
        """A job, once it is on the disk."""
        return await self._writer.write(lambda db: transactions.add(db, contract, data, claims), len(claims) + 1)

    async def step(self, head: Head) -> None:
        """Looks after everything that was sent, then sends what waits. ChainAway if no server answers: call it again later."""
        jobs = await self._writer.write(transactions.unfinished, 1)
        if not jobs:
            return
        counts = await self._nonces.counts()
        pending = 0
        waiting = []
        for job in jobs:
            if await self._mined(job, head):
                continue
            if job.state is State.SENT:
                pending += 1
                await self._watch(job, head, counts)
            else:
                waiting.append(job)
        for job in waiting:
            if pending < IN_FLIGHT and self._later.get(job.number, 0.0) <= self._clock():
                pending += await self._dispatch(job, head)

    # ------------------------------------------------------------------ what was sent

    async def _mined(self, job: Job, head: Head) -> bool:
        """Whether a transaction of the job is part of the chain; if that is final, the job is concluded."""
        found = await self._receipt(job, await self._attempts(job))
        if found is None:
            return False
        self._used.pop(job.number, None)
        if found.block <= head.final:
            await self._conclude(job, found)
        return True

    async def _watch(self, job: Job, head: Head, counts: Counts) -> None:
        """Does for a job that was sent, and is not mined, what it needs now."""
        assert job.nonce is not None
        if counts.final > job.nonce:
            await self._reconsider(job, "its nonce was used by somebody else")
        elif counts.latest <= job.nonce:
            newest = (await self._attempts(job))[-1]
            await self._wait(job, newest, head, counts)

    async def _attempts(self, job: Job) -> list[Attempt]:
        return await self._writer.write(lambda db: transactions.attempts(db, job.number), 1)

    async def _receipt(self, job: Job, attempts: list[Attempt]) -> Receipt | None:
        """The receipt of the one that was mined, the newest first; a failure counts only if the job was not sent anew for it."""
        for attempt in reversed(attempts):
            found = await self._rpc.ask(receipt, "eth_getTransactionReceipt", text(attempt.hash))
            if found is not None and (found.worked or attempt.nonce == job.nonce):
                return found
        return None

    async def _conclude(self, job: Job, found: Receipt) -> None:
        """A transaction of the job is final."""
        sent = text(found.hash)
        if found.worked:
            logger.info("{}: job {} is final: {}, {} gas", self._rpc.name, job.number, sent, found.gas)
            await self._finish(job, State.DONE, sent)
        elif job.failures + 1 < FAILURES:
            logger.warning("{}: {} failed on chain and is sent anew", self._rpc.name, sent)
            await self._writer.write(lambda db: transactions.again(db, job.number, f"{sent} failed", failed=True), 1)
        else:
            await self._finish(job, State.DROPPED, f"{sent} failed, as {FAILURES - 1} before it")

    async def _reconsider(self, job: Job, why: str) -> None:
        """Takes a nonce that is lost from the job, once that was seen often enough."""
        self._used[job.number] += 1
        if self._used[job.number] >= LOOKS:
            logger.warning("{}: job {} gets another nonce: {}", self._rpc.name, job.number, why)
            del self._used[job.number]
            await self._writer.write(lambda db: transactions.again(db, job.number, why, failed=False), 1)

    async def _wait(self, job: Job, newest: Attempt, head: Head, counts: Counts) -> None:
        """The job waits for a block: has it known to the server, and dearer if it waits too long."""
        late = head.block.number - newest.height >= PATIENCE_BLOCKS and self._clock() - newest.at >= PATIENCE_SECONDS
        if late and newest.nonce == counts.latest:
            await self._replace(job, newest, head)
        elif late and counts.pending < newest.nonce and not await self._nonces.held(counts.latest):
            await self._reconsider(job, "another transaction that was to come before it has vanished")
        elif await self._rpc.call("eth_getTransactionByHash", text(newest.hash)) is None:
            await self._broadcast(job, newest)

    async def _replace(self, job: Job, newest: Attempt, head: Head) -> None:
        market = await gas.market(self._rpc)
        cap = cap_of(self._settings.max_fee, job.worth, job.gas)
        fees = replacement(newest.fees, market.fees, cap)
        if fees is None:
            self._tell(job, f"waits for a block at {_gwei(newest.fees.most)} gwei, and is not worth more")
            await self._broadcast(job, newest)
            return
        logger.info(
            "{}: job {} waits too long; it now pays up to {} gwei", self._rpc.name, job.number, _gwei(fees.most)
        )
        await self._send(job, newest.nonce, fees, head)

    # --------------------------------------------------------------------- what waits

    async def _dispatch(self, job: Job, head: Head) -> int:
        """Sends a job that waits, if it is worth what it costs; how many transactions that made."""
        sender = self._identity.address
        try:
            paid = await Contract(self._rpc, job.contract).brings(sender, job.data)
            limit = await gas.needed(self._rpc, sender, Transaction(job.contract, job.data))
        except Refused as error:
            return await self._refused(job, error)
        if paid == 0:
            await self._finish(job, State.DROPPED, "there is nothing left to redeem")
            return 0
        market = await gas.market(self._rpc)
        data = await self._oracle.fee(len(job.data))
        worth = min(max(paid * _MILLION // self._settings.gas_rate - data, 0), MAX_AMOUNT)
        fees = within(market.fees, market.base_fee, cap_of(self._settings.max_fee, worth, limit))
        if fees is None:
            return self._postpone(job, "waits: it costs more than it brings, or its gas more than max_fee allows")
        if await self._rpc.ask(amount, "eth_getBalance", text(sender), "latest") < limit * fees.most + data:
            return self._postpone(job, self._penniless())
        await self._send(replace(job, gas=limit, worth=worth), await self._nonces.next(), fees, head)
        return 1

    async def _refused(self, job: Job, error: Refused) -> int:
        """The contract does not take it, which settle never does by itself; or the server cannot say."""
        if not error.reverted:
            return self._postpone(job, f"waits: {error}")
        await self._finish(job, State.DROPPED, explained(error))
        return 0

    def _postpone(self, job: Job, why: str) -> int:
        """Has a job tried again a little later, so that many of them do not ask the server again and again."""
        self._later[job.number] = self._clock() + PATIENCE_SECONDS
        self._tell(job, why)
        return 0

    # ------------------------------------------------------------------------- within

    async def _send(self, job: Job, nonce: int, fees: Fees, head: Head) -> None:
        """Signs, journals, broadcasts, in this order."""
        what = Transaction(job.contract, job.data)
        made = gas.signed(self._identity, self._settings.id, what, nonce, job.gas, fees)
        attempt = Attempt(made.hash, nonce, made.raw, fees, head.block.number, self._clock())
        await self._writer.write(lambda db: transactions.sign(db, job, attempt), 2)
        await self._broadcast(job, attempt)

    async def _broadcast(self, job: Job, attempt: Attempt) -> None:
        """What a server says against it changes nothing: the job keeps its nonce, and is broadcast again at the next look."""
        try:
            await self._rpc.call("eth_sendRawTransaction", text(attempt.raw))
            logger.debug(
                "{}: job {} is sent with nonce {}: {}", self._rpc.name, job.number, attempt.nonce, text(attempt.hash)
            )
        except Refused as error:
            if "insufficient funds" in error.reason:
                self._tell(job, self._penniless())
            elif not error.known and "nonce too low" not in error.reason:
                self._tell(job, f"waits: {error}")

    async def _finish(self, job: Job, state: State, note: str) -> None:
        self._told.pop(job.number, None)
        self._later.pop(job.number, None)
        if state is State.DROPPED:
            logger.warning("{}: job {} is dropped: {}", self._rpc.name, job.number, note)
        await self._writer.write(lambda db: transactions.finish(db, job.number, state, note), 2)

    def _penniless(self) -> str:
        return f"waits: {checksum(self._identity.address)} has not enough of the coin of {self._rpc.name} for its gas"

    def _tell(self, job: Job, what: str) -> None:
        if self._told.get(job.number) != what:
            self._told[job.number] = what
            logger.warning("{}: job {} {}", self._rpc.name, job.number, what)


def _gwei(fee: int) -> str:
    return units.show(fee, units.GWEI)
