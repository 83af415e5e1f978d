"""One executor's try at a request: budgets of time, hash, outcome, and a record of what is said. It knows no other try."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from loguru import logger

from lloom.adapters.bridge import Connection, Stream
from lloom.adapters.routing.deliveries import Deliveries, Expected
from lloom.adapters.routing.purse import Paid
from lloom.adapters.routing.returning import Connect, Returning
from lloom.core import tokens
from lloom.core.api.request import ApiRequest
from lloom.core.billing.response import ResponseHash
from lloom.core.continuation.record import Record
from lloom.core.errors import CallerFault, PeerFault, RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import Done
from lloom.core.order import Order
from lloom.core.payment import counting
from lloom.core.payment.audit import Report
from lloom.core.reputation.inspection import Inspection
from lloom.core.routing.candidate import Candidate
from lloom.core.routing.outcomes import Failure, Outcomes
from lloom.core.routing.pace import Pace
from lloom.core.settings import RoutingSettings

_MAX_HEAD: Final = 1024 * 1024
"""Bytes held back while nothing that counts as content is among them."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """What all attempts of a router share."""

    settings: RoutingSettings
    outcomes: Outcomes
    deliveries: Deliveries
    experienced: Callable[[NodeId, bool], None] = lambda _executor, _answered: None
    """Hears who answered, and who was not there."""
    audit: Callable[[Report], str | None] = lambda _report: None
    """Says what is wrong with the count of an answer that nobody pays for. What is paid for is judged by its receipt."""
    inspection: Inspection | None = None
    """Looks at answers; None: nobody does."""


class Attempt:
    """`begin` it; from its first content on `read` it until None, or use `async for`; `close` it in any case.

    `first` are the events up to the first content; `done` is set at the end. Errors are raised as they come, once all that came
    whole and sound before them was read. `clock` is the loop's.
    """

    def __init__(self, candidate: Candidate, deadline: float, keeping: Keeping, clock: Callable[[], float]) -> None:
        self.executor: NodeId = candidate.executor
        self.model = candidate.terms.id
        self.first = b""
        self.done: Done | None = None
        self.record: Record
        """What has been read of the answer; it is there once `begin` was called."""
        self.deadline = deadline
        """By `clock`: later than this it is given up."""
        self.encoding = candidate.terms.encoding
        """What the executor counts tokens by."""
        self.routing = ""
        """Why it was chosen, in a few words."""
        self._place = candidate.place
        self._keeping = keeping
        self._stream: Stream | None = None
        self._returning: Returning | None = None
        self._expected: Expected | None = None
        self._paid: Paid | None = None
        self._hash: ResponseHash
        self._pace = Pace()
        self._began = 0.0
        self._over = False
        self._clock = clock
        keeping.outcomes.began(self._place)

    async def begin(
        self,
        connection: Connection,
        order: Order,
        chat: ApiRequest,
        paid: Paid | None = None,
        connect: Connect | None = None,
    ) -> None:
        """Sends the order and waits for the first content. Leaves nothing behind when it raises. `paid`: None if nobody pays.

        `connect`: how the same Worker is reached again if the connection breaks; None: then it is over.
        """
        self._began = self._clock()
        until = min(self._began + self._keeping.settings.first_token_seconds, self.deadline)
        self._paid = paid
        self._returning = Returning(connect, order.call, chat.body) if connect is not None else None
        self._expected = self._keeping.deliveries.expect(order, paid)
        self._hash = ResponseHash(order.call.salt, 0)
        self.record = Record(chat.choices, chat.operation)
        try:
            self._stream = await connection.open(order.call)
            if paid is not None:
                paid.purchase.look = self._unread
            await self._stream.send(chat.body, until)
            await self._stream.finish()
            await self._head(self._stream, until)
        except TimeoutError as error:
            raise await self.failed(_late(self.executor, "sent nothing in time", "first_token_timeout")) from error
        except (RetryElsewhere, CallerFault) as error:
            gone = (self._stream.connection if self._stream is not None else connection).session.closed
            if paid is not None and not gone:  # where that broke, nobody knows whose fault it is
                paid.void()
            if isinstance(error, RetryElsewhere):
                raise await self.failed(error, gone=gone) from error
            await self.close()
            raise
        except BaseException:
            await self.close()
            raise
        now = self._clock()
        self._pace.began(now)
        self._keeping.outcomes.answered(self._place, now - self._began, now)
        self._keeping.experienced(self.executor, True)

    async def read(self) -> bytes | None:
        """The next events after `first`, maybe none that is whole yet; None at the end.

        RetryElsewhere if the executor fails, stalls or takes too long, PeerFault if it sends nonsense.
        The time between tokens counts only while somebody waits here: a slow reader is no dead executor.
        """
        if self._over or self._stream is None:
            return None
        try:
            self.record.check()
            data = await self._received(self._stream)
        except TimeoutError as error:
            raise await self.failed(_late(self.executor, "fell silent within its answer", "stalled")) from error
        except RetryElsewhere as error:
            raise await self.failed(error, gone=self._stream.connection.session.closed) from error
        if data is None:
            await self._complete(self._stream)
            return None
        self._take(data)
        return self.record.feed(data)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """All events of the answer, `first` included."""
        yield self.first
        while (data := await self.read()) is not None:
            yield data

    async def close(self) -> None:
        """Stops the executor's work if the answer is not over; idempotent. It never really waits."""
        if self._over:
            return
        self._over = True
        self._keeping.outcomes.ended(self._place)
        if self._stream is not None:
            if self._stream.received > self._hash.length:  # CANCEL will say that this has arrived, so it is billed
                self._take(await self._stream.receive() or b"")
            self._stream.cancel()
        if self._expected is not None:
            lost = self._stream is not None and self._stream.connection.session.closed
            said = self.record.text if self.done is not None and self.record.whole else None
            self._keeping.deliveries.arrived(self._expected, self._hash, lost=lost, said=said)

    @property
    def broken(self) -> bool:
        """Whether it has failed, and that is remembered."""
        return self._over and self.done is None

    async def failed(self, error: RetryElsewhere, *, gone: bool = True) -> RetryElsewhere:
        """Closes the attempt and remembers the failure. `gone`: the executor is silent or away, it did not refuse."""
        how = Failure.LIED if isinstance(error, PeerFault) else Failure.SILENT if gone else Failure.REFUSED
        self._keeping.outcomes.failed(self._place, self._clock(), how, error.retry_after)
        if how is not Failure.REFUSED:
            self._keeping.experienced(self.executor, False)
        await self.close()
        return error

    async def compare(self, request: ApiRequest, text: str | None) -> None:
        """The answer came whole, and said `text` (None: more than that): is the executor's count of it ours, is it made up?"""
        now, inspection = self._clock(), self._keeping.inspection
        if inspection is not None and text is not None:
            inspection.look(self.executor, self._place[2], request, text, now - self._began, now)
        if self._paid is not None or self.done is None:
            return
        audit, report = self._keeping.audit, Report(request, self.encoding, self.done, text)
        at_once = tokens.loaded(counting.known(self.encoding))
        found = audit(report) if at_once else await asyncio.to_thread(audit, report)
        self._keeping.outcomes.counted(self._place, now, overstated=found is not None)
        if found is not None:
            logger.warning("{} reports {}", checksum(self.executor), found)

    async def _head(self, stream: Stream, until: float) -> None:
        """Reads up to the first content: until then another executor may still answer, also where one sends nonsense."""
        record, head = self.record, bytearray()
        while not record.begun:
            record.check()
            if self._hash.length > _MAX_HEAD:
                raise PeerFault("the executor sends everything but content", code="bad_stream")
            try:
                data = await stream.receive(until)
            except RetryElsewhere as error:
                stream, data = await self._again(stream, error, until)
            if data is None:
                if not record.finished:
                    raise PeerFault("the executor ended without an answer", code="empty_answer")
                await self._complete(stream)
                break
            self._take(data)
            head += record.feed(data)
        self.first = bytes(head)

    async def _received(self, stream: Stream) -> bytes | None:
        """As `Stream.receive`, in time. What is there already may be late: its caller was not here to take it."""
        asked = self._clock()
        until = min(asked + self._keeping.settings.between_tokens_seconds, self.deadline)
        try:
            data = await stream.receive(until)
        except RetryElsewhere as error:
            _, data = await self._again(stream, error, until)
        self._pace.waited(asked, self._clock())
        return data

    async def _again(self, stream: Stream, error: RetryElsewhere, until: float) -> tuple[Stream, bytes]:
        """As `Returning.resume`, where the connection of `stream` broke; raises `error` if the rest cannot be had.

        Where nothing was heard, others are as good.
        """
        if self._returning is None or not stream.connection.session.closed or not self._hash.length:
            raise error
        try:
            async with asyncio.timeout_at(until):
                self._stream, rest = await self._returning.resume(self._hash)
        except (RetryElsewhere, CallerFault) as problem:
            logger.info("{} cannot be asked for the rest of its answer: {}", checksum(self.executor), problem)
            raise error from problem
        logger.info("the connection to {} broke, its answer goes on over another one", checksum(self.executor))
        return self._stream, rest

    def _unread(self, seen: int) -> bytes:
        """What of the answer has come after its first `seen` bytes and was not read: it is paid for as well."""
        assert self._stream is not None
        return self._stream.unread[seen - self._hash.length :] if self._stream.received > seen else b""

    def _take(self, data: bytes) -> None:
        before = self._hash.length
        self._hash.update(data)
        if self._paid is not None:
            self._paid.arrived(before, data)

    async def _complete(self, stream: Stream) -> None:
        self.done = stream.done or Done()
        tokens = min(self.done.output_tokens, self._hash.length)
        self._keeping.outcomes.succeeded(self._place, self._clock(), tokens, self._pace.seconds)
        await self.close()


def _late(executor: NodeId, what: str, code: str) -> RetryElsewhere:
    return RetryElsewhere(f"The executor {checksum(executor)} {what}.", status=504, code=code)
