"""One Worker's counter: takes calls from the bridge, checks and admits them, runs them on an engine, meters the answer.

It knows nothing of where receipts go, and it keeps no prompt and no answer longer than the call lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import Struct

from lloom.adapters.bridge import Connection, Stream
from lloom.adapters.llm import Engine
from lloom.core import tokens
from lloom.core.bridge.frames import MAX_DATA
from lloom.core.eip712 import Domain
from lloom.core.errors import CallerFault, PeerFault, RetryElsewhere
from lloom.core.identity import ADDRESS_BYTES
from lloom.core.messages import ChatCall, Done, OfferCall
from lloom.core.metering import Meter
from lloom.core.offer import ModelOffer, Offer
from lloom.core.receipt import (
    CheckedRequest,
    Draft,
    Lane,
    Quote,
    ResponseHash,
    Status,
    check_request,
    cost,
    quote_hash,
    quote_of,
    request_hash,
)
from lloom.core.settings import BridgeSettings, ExecutorSettings

BYTES_PER_TOKEN: Final = 4
"""Used only for the part of a very long answer that was not kept for counting."""


class _Prompt(Struct, frozen=True):
    """What of a body is counted where the backend does not count."""

    messages: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] | None = None


_prompt = msgspec.json.Decoder(_Prompt)


class Gate:
    """As many places as a backend runs in parallel, and a bounded queue before them."""

    def __init__(self, places: int, settings: ExecutorSettings) -> None:
        self._free = asyncio.Semaphore(places)
        self._settings = settings
        self._waiting = 0
        self.running = 0

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Holds a place; RetryElsewhere (429) if the queue is full or moves too slowly."""
        await self._enter()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._free.release()

    async def _enter(self) -> None:
        if self._free.locked() and self._waiting >= self._settings.queue:
            raise _busy("This executor is busy and its queue is full.")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._settings.queue_seconds):  # wait_for can swallow a CANCEL
                await self._free.acquire()
        except TimeoutError:
            raise _busy("This executor stayed busy for too long.") from None
        finally:
            self._waiting -= 1


@dataclass(frozen=True, slots=True)
class Terms:
    """What one request is served under."""

    quote: Quote
    model: ModelOffer


class Book:
    """The offers that still bind: the newest, and those before it until they expire, because clients hold their quotes."""

    def __init__(self) -> None:
        self._sealed = b""
        self._expires = 0
        self._terms: dict[bytes, Terms] = {}

    def publish(self, sealed: bytes, offer: Offer, now: float) -> None:
        """Makes `offer` the newest."""
        self._sealed, self._expires = sealed, offer.expires
        self._terms = {key: terms for key, terms in self._terms.items() if terms.quote.valid_until > now}
        for model in offer.models:
            quote = quote_of(offer, model)
            self._terms[quote_hash(quote)] = Terms(quote, model)

    def sealed(self, now: float) -> bytes:
        """The newest offer, signed; RetryElsewhere (503) while there is none that holds: the executor's head is away."""
        if self._expires <= now:
            raise RetryElsewhere(
                "This executor has no offer right now; it is starting.", status=503, code="starting", retry_after=1.0
            )
        return self._sealed

    def terms(self, quote: bytes, now: float) -> Terms:
        """The terms that the hash `quote` names; RetryElsewhere if they are not this executor's, or no longer."""
        found = self._terms.get(quote)
        if found is None or found.quote.valid_until <= now:
            raise RetryElsewhere(
                "The quote is unknown or has expired; ask for the offer again.", status=409, code="quote"
            )
        return found


class Serving:
    """Answers the calls of all connections of one Worker. `engines` maps canonical model ids."""

    def __init__(
        self,
        settings: ExecutorSettings,
        bridge: BridgeSettings,
        domain: Domain,
        engines: Mapping[str, tuple[Engine, ModelOffer]],
        receipt: Callable[[Connection, Draft], None],
    ) -> None:
        self.book = Book()
        self.served = 0
        self._settings = settings
        self._window = bridge.stream_window
        self._domain = domain
        self.engines = engines
        self._gates = {engine.name: Gate(offer.parallel, settings) for engine, offer in engines.values()}
        self._clients: Counter[bytes] = Counter()
        self._receipt = receipt

    @property
    def running(self) -> int:
        """Requests that are being answered now."""
        return sum(gate.running for gate in self._gates.values())

    async def handle(self, stream: Stream) -> None:
        """One call, from OPEN to END; what it raises becomes a RESET."""
        match stream.call:
            case OfferCall():
                async with _deadline(self._settings.request_seconds):
                    await stream.send(self.book.sealed(time.time()))
                    await stream.finish()
            case ChatCall() as call:
                await self._chat(stream, call)

    async def _chat(self, stream: Stream, call: ChatCall) -> None:
        checked, terms = self._check(stream, call)
        async with self._client_share(stream.connection.peer), _deadline(self._seconds(checked)):
            body = await self._body(stream)
            if checked.request.request_hash != request_hash(call.salt, call.model, body):
                raise PeerFault("The request's body is not the one that was signed.", code="bad_request_hash")
            engine, _ = self.engines[call.model]
            async with self._gates[engine.name].place():
                await Run(stream, call, checked, terms, self._window).answer(engine, body, self._receipt)
        self.served += 1

    def _check(self, stream: Stream, call: ChatCall) -> tuple[CheckedRequest, Terms]:
        """The signed request, if it is its sender's, for a model served here, under terms that still bind."""
        now = time.time()
        checked = check_request(call.request, call.signature, self._domain, now)
        if checked.request.client != stream.connection.peer:
            raise PeerFault("The request was signed by somebody else than its sender.", code="bad_signature")
        if call.model not in self.engines:
            raise RetryElsewhere(f"The model {call.model} is not served here.", status=404, code="model_not_found")
        terms = self.book.terms(checked.request.quote_hash, now)
        if terms.model.id != call.model:
            raise PeerFault("The quote is for another model.", code="quote")
        return checked, terms

    @contextlib.asynccontextmanager
    async def _client_share(self, client: bytes) -> AsyncIterator[None]:
        """Bounds what one client may have open at once."""
        if self._clients[client] >= self._settings.requests_per_client:
            raise _busy("You have too many requests open at this executor.")
        self._clients[client] += 1
        try:
            yield
        finally:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    def _seconds(self, checked: CheckedRequest) -> float:
        return min(self._settings.request_seconds, max(0.0, checked.request.deadline - time.time()))

    async def _body(self, stream: Stream) -> bytes:
        parts: list[bytes] = []
        size = 0
        while (part := await stream.receive()) is not None:
            size += len(part)
            if size > self._settings.max_body:
                raise CallerFault(
                    f"The request is larger than the {self._settings.max_body} bytes this executor takes.",
                    status=413,
                    code="request_too_large",
                )
            parts.append(part)
        return b"".join(parts)


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


@contextlib.asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    """Bounds a whole call; RetryElsewhere (504) if it takes longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise RetryElsewhere("The answer took too long.", status=504, code="deadline") from None


def _busy(message: str) -> RetryElsewhere:
    return RetryElsewhere(message, status=429, code="busy", retry_after=1.0)
