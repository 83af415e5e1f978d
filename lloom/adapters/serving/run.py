"""One answer on its way from an engine to a stream, and the draft of its receipt. It keeps no prompt and no answer longer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

import msgspec
from msgspec import Struct

from lloom.adapters.bridge import Connection, Stream
from lloom.adapters.llm import Engine
from lloom.adapters.serving.book import Terms
from lloom.core import tokens
from lloom.core.bridge.frames import MAX_DATA
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import ADDRESS_BYTES
from lloom.core.messages import ChatCall, Done
from lloom.core.metering import Meter
from lloom.core.receipt import CheckedRequest, Draft, Lane, ResponseHash, Status, cost

BYTES_PER_TOKEN: Final = 4
"""Used only for the part of a very long answer that was not kept for counting."""


class _Prompt(Struct, frozen=True):
    """What of a body is counted where the backend does not count."""

    messages: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] | None = None


_prompt = msgspec.json.Decoder(_Prompt)


class Run:
    """One answer: engine → meter → stream, and the draft of its receipt, whatever way it ends."""

    def __init__(self, stream: Stream, call: ChatCall, checked: CheckedRequest, terms: Terms, window: int) -> None:
        self._stream = stream
        self._call = call
        self._checked = checked
        self._terms = terms
        self._hash = ResponseHash(call.salt, window + MAX_DATA)  # what is hashed and being sent is still to come
        self._meter = Meter()
        self._started = time.time_ns() // 1_000_000
        self._clock = time.monotonic()

    async def answer(self, engine: Engine, body: bytes, receipt: Callable[[Connection, Draft], None]) -> None:
        """Streams the answer and hands the receipt's draft to `receipt`; errors pass through after that."""
        status, counted = Status.FAILED, (0, 0)
        try:
            async with contextlib.aclosing(engine.stream(self._call.model, body)) as source:
                await self._pump(source)
            counted = await self._count(body, self._hash.length)
            await self._stream.finish(Done(*counted, self._usage(*counted)))
            status = Status.COMPLETE
        except asyncio.CancelledError:
            if self._stream.cancelled is not None:
                status = Status.CANCELLED
            raise
        finally:
            if self._hash.length:  # who got nothing owes nothing
                with contextlib.suppress(PeerFault):  # a CANCEL that lies about its bytes earns no receipt
                    receipt(self._stream.connection, await self._draft(status, body, counted))

    async def _pump(self, source: AsyncGenerator[bytes, None]) -> None:
        async for data in source:
            block = self._meter.feed(data)
            for start in range(0, len(block), MAX_DATA):
                piece = block[start : start + MAX_DATA]
                self._hash.update(piece)
                await self._stream.send(piece)
        if not self._meter.ended:
            raise RetryElsewhere("The backend broke off its answer.", code="backend_cut")

    async def _count(self, body: bytes, length: int) -> tuple[int, int]:
        """Tokens of the prompt and of the answer's first `length` bytes.

        The backend's own numbers, or ours where it gave none; of an answer that did not all arrive at most what we count.
        """
        whole = length == self._hash.length
        if self._meter.usage and whole:
            return self._meter.tokens()
        inputs, outputs = await asyncio.to_thread(self._count_text, body, length)
        if self._meter.usage:
            reported = self._meter.tokens()
            return reported[0], min(reported[1], outputs)
        return inputs, outputs

    def _count_text(self, body: bytes, length: int) -> tuple[int, int]:
        encoding = self._terms.model.encoding
        outputs = tokens.count(self._meter.text(length), encoding) + self._meter.unkept(length) // BYTES_PER_TOKEN
        try:
            prompt = _prompt.decode(body)
            return tokens.count_messages(prompt.messages, prompt.tools or [], encoding), outputs
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the backend took it all the same
            return len(body) // BYTES_PER_TOKEN, outputs

    def _usage(self, inputs: int, outputs: int) -> bytes:
        return self._meter.usage or (
            b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}' % (inputs, outputs, inputs + outputs)
        )

    async def _draft(self, status: Status, body: bytes, counted: tuple[int, int]) -> Draft:
        """The receipt of what was delivered: a cancelled answer up to the byte its client received, a failed one for nothing.

        More tokens than were ordered are not charged: no client accepts that.
        """
        cancel, length = self._stream.cancelled, self._hash.length
        if cancel is not None and status is Status.CANCELLED:
            length = cancel.received
        response_hash = self._hash.digest(length)
        if status is Status.CANCELLED:
            counted = await self._count(body, length)
        request, quote = self._checked.request, self._terms.quote
        ordered = (request.max_input_tokens, request.max_output_tokens)
        inputs, outputs = (0, 0) if status is Status.FAILED else map(min, counted, ordered)
        return Draft(
            lane=Lane(client=request.client, token=bytes(ADDRESS_BYTES), number=request.lane),
            request_digest=self._checked.digest,
            model=quote.model,
            response_hash=response_hash,
            response_bytes=length,
            input_tokens=inputs,
            cached_tokens=0,
            output_tokens=outputs,
            cost=0 if status is Status.FAILED else cost(quote, inputs, 0, outputs),
            started_at=self._started,
            finished_at=self._started + int(1000 * (time.monotonic() - self._clock)),  # the wall clock may be set back
            status=status,
        )
