"""One answer on its way from an engine to a stream, and the draft of its receipt. It keeps no prompt and no answer longer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from typing import Final

from lloom.adapters.bridge import Connection
from lloom.adapters.llm import Engine
from lloom.adapters.serving.audit import Audit
from lloom.adapters.serving.book import Terms
from lloom.adapters.serving.gate import Visit
from lloom.adapters.serving.outlet import Outlet
from lloom.adapters.serving.tab import Tab, Unpaid
from lloom.core import metering, prompt, tokens
from lloom.core.billing.lane import Lane
from lloom.core.billing.quote import cost
from lloom.core.billing.receipt import Draft, Status
from lloom.core.billing.request import CheckedRequest, Request
from lloom.core.billing.response import ResponseHash
from lloom.core.bridge.frames import MAX_DATA
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.messages import Done, ModelCall
from lloom.core.metering import Meter
from lloom.core.prompt import BYTES_PER_TOKEN
from lloom.core.sse import payloads

_ROOMY: Final = 512
"""Bytes of a token's event, more than nearly all have."""
_SHORT: Final = 1024
"""Characters that are counted faster than a thread takes over: in 0.2 ms, and of the worst text in two."""
_CUT: Final = (Status.CANCELLED, Status.UNPAID)
"""How an answer ends that is billed as far as it came."""


class Run:
    """One answer: engine → meter → stream, and the draft of its receipt, whatever way it ends."""

    def __init__(self, outlet: Outlet, call: ModelCall, checked: CheckedRequest, terms: Terms, window: int) -> None:
        """`window`: bytes that may be under way to the client."""
        self.call = call
        self._outlet = outlet
        self._checked = checked
        self._terms = terms
        self._hash = ResponseHash(call.salt, window + MAX_DATA)  # what is hashed and being sent is still to come
        self._meter = Meter(call.operation)
        self._started = time.time_ns() // 1_000_000
        self._clock = time.monotonic()
        self._tab: Tab | None = None
        self._cut = False
        """Whether it ended neither by itself nor by a failure."""
        self._counted = self._most = 0
        """Tokens of the answer that are counted, and the most that what was said since then, `_uncounted`, can amount to."""
        self._uncounted: list[str] = []
        self._given = 0
        """Bytes of it that the backend gave."""
        self._looked = _ROOMY * (checked.request.max_output_tokens + 8)
        """Beyond so many it is looked at whether they are more than was ordered."""

    @property
    def request(self) -> Request:
        """What was ordered."""
        return self._checked.request

    async def answer(
        self,
        engine: Engine,
        body: bytes,
        visit: Visit,
        receipt: Callable[[Connection, Draft], None],
        tab: Tab | None = None,
    ) -> None:
        """Streams the answer and hands the receipt's draft to `receipt`; errors pass through after that.

        `visit` hears what the backend spent. With a `tab` it goes no further than that covers, and waits there for credit.
        """
        self._tab = tab
        self._outlet.begun = True
        status, counted = Status.FAILED, (0, 0)
        try:
            async with contextlib.aclosing(engine.stream(self.call.operation, self.call.model, body)) as source:
                await self._pump(source)
            counted = await self._count(body, self._hash.length)
            visit.spent = sum(counted)
            await self._outlet.finish(Done(*counted, self._usage(*counted)))
            status = Status.COMPLETE
        except asyncio.CancelledError:
            self._cut = True
            if self._outlet.cancelled is not None:
                status = Status.CANCELLED
            raise
        except Unpaid:
            status = Status.UNPAID
            raise
        except RetryElsewhere:
            if not self._hash.length:  # the backend refused or was not there
                visit.spent = 0
            raise
        finally:
            if self._hash.length:  # who got nothing owes nothing
                draft = await self._final(status, body, counted)
                if tab is not None and draft is not None:
                    tab.close(draft.cost)
                self._outlet.draft = draft
                if draft is not None:
                    receipt(self._outlet.connection, draft)

    async def _pump(self, source: AsyncGenerator[bytes, None]) -> None:
        async for data in source:
            block = self._meter.feed(data)
            if self._tab is not None:
                await self._cover(self._tab, block)
            for start in range(0, len(block), MAX_DATA):
                piece = block[start : start + MAX_DATA]
                self._hash.update(piece)
                await self._outlet.send(piece)
        if not self._meter.ended:
            raise RetryElsewhere("The backend broke off its answer.", code="backend_cut")
        if not (self._said or self._meter.ends()):
            raise RetryElsewhere("The backend ended without an answer.", code="backend_silent")

    async def compare(self, audit: Audit, body: bytes) -> None:
        """Now and then, once the answer is out: does the backend count as we do, where nothing is left to guess?"""
        model = self._terms.model
        if self._meter.usage and audit.due(model.id) and prompt.plain(self.call.operation, body):
            counted = await asyncio.to_thread(self._count_text, body, self._hash.length)
            audit.compare(model.id, model.encoding, self._meter.tokens(), counted)

    async def _cover(self, tab: Tab, block: bytes) -> None:
        """Waits until there is credit for `block`. No token is shorter than a byte: as long as credit covers the bytes of what
        it says, nothing is counted.
        """
        self._given += len(block)
        if tab.whole:
            if self._given > self._looked:
                await self._end_of_order()
            return
        text = metering.text(self.call.operation, payloads(block))
        self._uncounted.append(text)
        self._most += len(text.encode())
        if not tab.covers(self._counted + self._most // BYTES_PER_TOKEN, self._counted + self._most):
            self._counted += await self._count_since()
            await tab.credit(self._counted)

    async def _end_of_order(self) -> None:
        """`Unpaid` if there are far more tokens than were ordered: nobody pays for them, and the backend knows no limit. What
        another tokenizer makes of a text is no more than twice as much; a completion may repeat its prompt (`echo`).
        """
        self._looked *= 2
        ordered = self.request.max_input_tokens + self.request.max_output_tokens
        if await asyncio.to_thread(self._outputs, self._given) > 2 * ordered:
            raise Unpaid

    async def _count_since(self) -> int:
        text, encoding = "".join(self._uncounted), self._terms.model.encoding
        self._uncounted, self._most = [], 0
        if len(text) <= _SHORT:
            return tokens.count(text, encoding)
        return await asyncio.to_thread(tokens.count, text, encoding)

    async def _count(self, body: bytes, length: int, *, whole: bool = True) -> tuple[int, int]:
        """Tokens of the prompt and of the answer's first `length` bytes; `whole`: the backend gave no more than that.

        The backend's own numbers, or ours where it gave none; of an answer that did not all arrive at most what we count.
        """
        whole = whole and length == self._hash.length
        if self._meter.usage and whole:
            return self._meter.tokens()
        inputs, outputs = await asyncio.to_thread(self._count_text, body, length)
        if self._meter.usage:
            reported = self._meter.tokens()
            return reported[0], min(reported[1], outputs)
        return inputs, outputs

    def _count_text(self, body: bytes, length: int) -> tuple[int, int]:
        inputs = self._tab.prompt if self._tab else prompt.count(self.call.operation, body, self._terms.model.encoding)
        return inputs, self._outputs(length)

    def _outputs(self, length: int) -> int:
        unkept = self._meter.unkept(length)
        return tokens.count(self._meter.text(length), self._terms.model.encoding) + unkept // BYTES_PER_TOKEN

    def _usage(self, inputs: int, outputs: int) -> bytes:
        return self._meter.usage or (
            b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}' % (inputs, outputs, inputs + outputs)
        )

    async def _final(self, status: Status, body: bytes, counted: tuple[int, int]) -> Draft | None:
        """The receipt of what was delivered: a cancelled answer up to the byte its client received, a failed one for nothing.

        A beginning that says nothing is no answer, unless its client left it. A CANCEL that lies about its bytes earns no
        receipt. Who pays gets one over all that was sent then, and also if a part of its answers is under way
        whenever it cancels, is cut off, or lets the time run out: nobody can tell how much has arrived, but that is how to pay
        for nothing.
        """
        length, cancel = self._hash.length, self._outlet.cancelled
        if cancel is not None and status is Status.CANCELLED:
            try:
                draft = await self._draft(status, body, counted, cancel.received)
            except PeerFault:
                if self._tab is None:
                    return None
            else:
                billed = draft.output_tokens
                if self._tab is None or cancel.received == length or self._tab.forgives(await self._sent(), billed):
                    return draft
        if status is Status.UNPAID and not self._said:
            status = Status.FAILED
        broken = status is Status.FAILED and self._broken()
        if broken and self._tab is not None and not self._tab.forgives(await self._sent()):
            status = Status.CANCELLED
        return await self._draft(status, body, counted, length)

    async def _sent(self) -> int:
        """Tokens that were sent, by our own count."""
        return await asyncio.to_thread(self._outputs, self._hash.length)

    def _broken(self) -> bool:
        """Whether the connection is gone, or the time over amid the answer, and it was not we who ended that."""
        session = self._outlet.connection.session
        return self._cut and not session.left and (session.closed or self._said)

    @property
    def _said(self) -> bool:
        """Whether anything of the answer was sent, and not only its beginning."""
        return self._meter.says(self._hash.length)

    def _digest(self, length: int) -> bytes:
        """The hash of the first `length` bytes; PeerFault if those cannot be all that arrived."""
        try:
            return self._hash.digest(length)
        except PeerFault:
            found = self._outlet.digest(self.call.salt, length)
            if found is None:
                raise
            return found

    async def _draft(self, status: Status, body: bytes, counted: tuple[int, int], length: int) -> Draft:
        """More tokens than were ordered are not charged: no client accepts that. PeerFault if never so many bytes were sent."""
        response_hash = self._digest(length)
        if status in _CUT:
            counted = await self._count(body, length, whole=status is not Status.UNPAID)
        request, quote = self._checked.request, self._terms.quote
        ordered = (request.max_input_tokens, request.max_output_tokens)
        failed = status is Status.FAILED
        inputs, outputs = (0, 0) if failed else map(min, counted, ordered)
        return Draft(
            lane=Lane(client=request.client, token=quote.token, number=request.lane),
            request_digest=self._checked.digest,
            model=quote.model,
            response_hash=response_hash,
            response_bytes=length,
            input_tokens=inputs,
            cached_tokens=0,
            output_tokens=outputs,
            cost=0 if failed else cost(quote, inputs, 0, outputs),
            started_at=self._started,
            finished_at=self._started + int(1000 * (time.monotonic() - self._clock)),  # the wall clock may be set back
            status=status,
        )
