"""One Worker's counter: takes calls from the bridge, checks and admits them. It knows nothing of where receipts go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar, TypeVarTuple

from lloom.adapters.bridge import Connection, Stream
from lloom.adapters.llm import Engine
from lloom.adapters.serving import bounds
from lloom.adapters.serving.audit import Audit
from lloom.adapters.serving.bodies import Bodies, Body
from lloom.adapters.serving.book import Book, Terms
from lloom.adapters.serving.crowd import Crowd
from lloom.adapters.serving.gate import Gate, Visit
from lloom.adapters.serving.orders import Orders, overdue
from lloom.adapters.serving.outlet import Outlet
from lloom.adapters.serving.run import Run
from lloom.adapters.serving.tab import Price, Tab
from lloom.adapters.serving.till import Till
from lloom.adapters.serving.tills import NO_TILLS, Tills
from lloom.core import prompt
from lloom.core.api.request import Operation
from lloom.core.billing.lane import Lane
from lloom.core.billing.receipt import Draft
from lloom.core.billing.request import CheckedRequest, check_request, request_hash
from lloom.core.eip712 import Domain
from lloom.core.errors import CallerFault, PeerFault, RetryElsewhere
from lloom.core.messages import LaneCall, ModelCall, OfferCall, encode
from lloom.core.offer import ModelOffer
from lloom.core.settings import BridgeSettings, ExecutorSettings

SHORT: Final = 4096
"""Bytes of a body that is looked into at once, within a few milliseconds at worst; into longer ones in a thread."""

EXPECTED_OUTPUT: Final = 512
"""Tokens of an answer that are reserved of a backend's rate; most requests allow far more than they get."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Serving:
    """Answers the calls of all connections of one Worker. `engines` maps canonical model ids, and may change at any time."""

    def __init__(
        self,
        settings: ExecutorSettings,
        bridge: BridgeSettings,
        domain: Domain,
        engines: Mapping[str, tuple[Engine, ModelOffer]],
        receipt: Callable[[Connection, Draft], None],
        tills: Tills = NO_TILLS,
    ) -> None:
        """`receipt` takes drafts of what costs nothing; `domain` is that of its requests."""
        self.book = Book()
        self.served = 0
        self.audit: Audit | None = None
        """Looks at what backends count; None: nobody does."""
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._window = bridge.stream_window
        self._domain = domain
        self.engines = engines
        self._gates: dict[str, Gate] = {}
        self._clients = Crowd(settings.requests_per_client)
        self._bodies = Bodies(settings.bodies)
        self._orders = Orders(settings)
        self._receipt = receipt
        self._tills = tills

    @property
    def running(self) -> int:
        """Requests that are being answered now."""
        return sum(gate.running for gate in self._gates.values())

    async def handle(self, stream: Stream) -> None:
        """One call, from OPEN to END; what it raises becomes a RESET."""
        match stream.call:
            case ModelCall() as call:
                await self._chat(stream, call)
            case OfferCall():
                await _in_time(self._latest(), self._offer, stream)
            case LaneCall() as call:
                await _in_time(self._latest(), self._lane, stream, call)
            case _:
                raise RetryElsewhere("An executor does not answer this.", status=501, code="wrong_role")

    async def close(self) -> None:
        """Ends what nobody listens to any more. After the last connection."""
        await self._orders.close()

    async def _offer(self, stream: Stream) -> None:
        await stream.send(self.book.sealed(time.time()))
        await stream.finish()

    async def _lane(self, stream: Stream, call: LaneCall) -> None:
        client = stream.connection.peer
        self._clients.enter(client)
        try:
            await stream.send(encode(await self._tills.at(call.chain).desk.lane(client, call)))
            await stream.finish()
        finally:
            self._clients.leave(client)

    async def _chat(self, stream: Stream, call: ModelCall) -> None:
        checked = self._signed(stream, call)
        if call.chain and call.voucher is not None:  # whatever becomes of the request, others count on it
            self._tills.at(call.chain).take(stream.connection.peer, call.voucher)
        known, until = self._orders.known(checked), self._until(checked)
        if known:
            with Body(self._bodies) as room:
                await self._body(stream, call, checked, room, until)
            await self._orders.resume(stream, checked)
            return
        terms = self._terms(call, checked)
        client, room = stream.connection.peer, Body(self._bodies)
        self._clients.enter(client)

        def over() -> None:
            room.leave()
            self._clients.leave(client)

        try:
            body = await self._body(stream, call, checked, room, until)
            bill = self._receipt if terms.payment is None else self._tills.at(call.chain).bill_again
            running = self._orders.begin(
                stream, checked, until, lambda outlet: self._answer(outlet, call, checked, terms, body), bill, over
            )
        except BaseException:
            over()
            raise
        await self._orders.listen(running, stream)

    async def _answer(
        self, outlet: Outlet, call: ModelCall, checked: CheckedRequest, terms: Terms, body: bytes
    ) -> None:
        engine, run = self._engine(call.model), Run(outlet, call, checked, terms, self._window)
        if terms.payment is None:
            async with await self._place(engine, run, terms, body) as visit:
                await run.answer(engine, body, visit, self._receipt)
        else:
            await self._paid(run, engine, outlet, terms, body)
        if self.audit is not None:
            await run.compare(self.audit, body)
        self.served += 1

    async def _paid(self, run: Run, engine: Engine, outlet: Outlet, terms: Terms, body: bytes) -> None:
        """An answer that goes as far as it is paid for. Whatever happens, what it did not cost is given back."""
        till, call = self._tills.at(run.call.chain), run.call
        body = await _aside(body, bounds.bounded, call.operation, body, run.request, terms.model)
        tab = outlet.tab = await self._tab(till, outlet.connection, run, terms, body)
        try:
            async with await self._place(engine, run, terms, body) as visit:
                await run.answer(engine, body, visit, till.desk.bill, tab)
        finally:
            tab.close()

    async def _place(self, engine: Engine, run: Run, terms: Terms, body: bytes) -> Visit:
        """A place at the backend, to be held, for what the request will take, about."""
        gate = self._gates.get(engine.name) or self._gates.setdefault(engine.name, Gate(engine.limits, self._settings))
        tokens = 0
        if gate.counts_tokens:
            expected = min(run.request.max_output_tokens, terms.model.max_output, EXPECTED_OUTPUT)
            tokens = await _prompt(run.call.operation, body, terms.model.encoding) + expected
        return gate.place(tokens)

    def _engine(self, model: str) -> Engine:
        """Who serves `model` now: what is offered may change while a request arrives. RetryElsewhere if nobody does."""
        found = self.engines.get(model)
        if found is None:
            raise RetryElsewhere(f"The model {model} is not served here.", status=404, code="model_not_found")
        return found[0]

    async def _tab(self, till: Till, connection: Connection, run: Run, terms: Terms, body: bytes) -> Tab:
        """Draws what the request's beginning may cost. RetryElsewhere (402) if its client has not paid for that."""
        call, request = run.call, run.request
        tokens = await _prompt(call.operation, body, terms.model.encoding)
        if tokens > request.max_input_tokens:
            await _aside(body, bounds.admit, call.operation, body, request, terms.model, tokens)
        lane = Lane(request.client, terms.quote.token, request.lane)
        return await till.open(connection, lane, Price.of(terms.quote, request, tokens), tokens)

    def _signed(self, stream: Stream, call: ModelCall) -> CheckedRequest:
        """The signed request, if it is its sender's."""
        domain = self._tills.at(call.chain).domain if call.chain else self._domain
        checked = check_request(call.request, call.signature, domain, time.time())
        if checked.request.client != stream.connection.peer:
            raise PeerFault("The request was signed by somebody else than its sender.", code="bad_signature")
        return checked

    def _terms(self, call: ModelCall, checked: CheckedRequest) -> Terms:
        """Those of the request, if they still bind, and the model is served here."""
        self._engine(call.model)
        terms = self.book.terms(checked.request.quote_hash, time.time())
        if terms.model.id != call.model:
            raise PeerFault("The quote is for another model.", code="quote")
        if call.operation not in terms.model.operations:
            raise RetryElsewhere(
                f"The model {call.model} does not do {call.operation} here.", status=404, code="operation"
            )
        if call.chain != (terms.payment.chain if terms.payment else 0):
            raise PeerFault("The quote is paid on another chain.", code="quote")
        return terms

    def _latest(self) -> float:
        return self._loop.time() + self._settings.request_seconds

    def _until(self, checked: CheckedRequest) -> float:
        """When the request has to be over, on the loop's clock."""
        left = max(0.0, checked.request.deadline - time.time())
        return self._loop.time() + min(left, self._settings.request_seconds)

    async def _body(self, stream: Stream, call: ModelCall, checked: CheckedRequest, room: Body, until: float) -> bytes:
        """The request's body, which is the one that was signed; `room` grows with it. RetryElsewhere (504) if it is late."""
        parts: list[bytes] = []
        try:
            while (part := await stream.receive(until)) is not None:
                room.grow(len(part))
                if room.size > self._settings.max_body:
                    raise CallerFault(
                        f"The request is larger than the {self._settings.max_body} bytes this executor takes.",
                        status=413,
                        code="request_too_large",
                    )
                parts.append(part)
        except TimeoutError:
            raise overdue() from None
        body = b"".join(parts)
        if checked.request.request_hash != request_hash(call.salt, call.operation, call.model, body):
            raise PeerFault("The request's body is not the one that was signed.", code="bad_request_hash")
        return body


async def _prompt(operation: Operation, body: bytes, encoding: str) -> int:
    """Tokens of the prompt, counted without holding up the loop."""
    return await _aside(body, prompt.count, operation, body, encoding)


async def _aside(body: bytes, work: Callable[[*Ts], T], *given: *Ts) -> T:
    """What `work` gives, done in a thread unless `body` is short."""
    return work(*given) if len(body) <= SHORT else await asyncio.to_thread(work, *given)


async def _in_time(until: float, work: Callable[[*Ts], Awaitable[T]], *given: *Ts) -> T:
    """What `work` gives; RetryElsewhere (504) if it is not over by `until`, on the loop's clock."""
    try:
        async with asyncio.timeout_at(until):
            return await work(*given)
    except TimeoutError:
        raise overdue() from None
