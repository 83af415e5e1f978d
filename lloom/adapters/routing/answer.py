"""The answer to a request as its caller reads it, over however many executors it takes. It never repeats or loses a word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from loguru import logger

from lloom.adapters.routing.attempt import Attempt
from lloom.adapters.routing.attempts import Attempts
from lloom.core import prompt, tokens
from lloom.core.api.request import ApiRequest
from lloom.core.continuation import resumption
from lloom.core.continuation.splice import DIVERGED, Splice, ending
from lloom.core.errors import CallerFault, PeerFault, RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import Done
from lloom.core.payment import counting


class Folding(Protocol):
    """What joins the events of an answer into a whole; PeerFault if they are none."""

    def feed(self, data: bytes) -> None: ...
    def end(self, done: Done) -> bytes: ...


_OF_THE_MODEL: Final = "bad_arguments"
"""A fault of what the model wrote: its executor did what it was asked to."""


class Answer:
    """An answer whose first content is here. Read it with `async for`, or `read` until None; `close` it in any case.

    `first` are the bytes up to the first content; all are whole, sound events. `done` is set at the end. When an executor fails
    after that, another one goes on where the request allows it (`core/continuation`); else its error is raised.
    """

    def __init__(self, request: ApiRequest, attempts: Attempts, attempt: Attempt) -> None:
        self.done: Done | None = None
        self._request = request
        self._attempts = attempts
        self._continuations = 0
        self._closed = False
        self._began(attempt)

    @property
    def executor(self) -> NodeId:
        """Who answers now."""
        return self._attempt.executor

    @property
    def attempts(self) -> int:
        """How many executors were asked."""
        return self._attempts.count

    @property
    def routing(self) -> str:
        """Why the executor was chosen, in a few words."""
        return self._attempt.routing

    @property
    def deadline(self) -> float:
        """On the loop's clock: later than this it is given up."""
        return self._attempts.deadline

    async def read(self) -> bytes | None:
        """The next events after `first`, None at the end. RetryElsewhere if the executor fails and nobody can go on."""
        while self.done is None and not self._closed:
            try:
                data = await self._attempt.read()
                if data is None:
                    await self._end(self._attempt.done or Done())
                    return None
                block = self._seen(data)
            except RetryElsewhere as error:
                await self._give_up(error)
                block = await self._resume(error)
            if self._splice is not None and self._splice.stopped:
                await self._attempt.close()
                self.done = await self._counted()
            if block:
                return block
        return None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """All bytes of the answer, `first` included."""
        yield self.first
        while (data := await self.read()) is not None:
            yield data

    async def folded(self, make: Callable[[], Folding]) -> bytes:
        """The whole answer, joined by what `make` gives. Its caller has seen nothing of it yet: it may begin anew, every time."""
        while True:
            whole = make()
            try:
                whole.feed(self.first)
                while (data := await self.read()) is not None:
                    whole.feed(data)
                return whole.end(self.done or Done())
            except RetryElsewhere as error:
                if error.code == _OF_THE_MODEL:
                    raise
                await self._give_up(error)
                await self._begin_anew(error)

    async def close(self) -> None:
        """Stops the executor's work if the answer is not over; idempotent. It never really waits."""
        self._closed = True
        await self._attempt.close()

    def _began(self, attempt: Attempt) -> None:
        """A first part: nothing was said before it."""
        self.done = None
        self.first = attempt.first
        self._attempt = attempt
        self._record = attempt.record
        """What the caller has seen."""
        self._splice: Splice | None = None
        self._way: resumption.Way | None = None
        self._used = 0
        """Tokens of the parts before this one."""

    def _seen(self, data: bytes) -> bytes:
        """What the caller is to see of `data`: of a first part all, since its attempt records it already."""
        return data if self._splice is None else self._record.feed(self._splice.feed(data))

    async def _end(self, done: Done) -> None:
        """PeerFault if the executor ends what has not come to an end."""
        if not self._record.finished and self._request.operation != "embeddings":
            raise PeerFault("the answer broke off before its end", code="bad_stream")
        self.done = done if self._way is None else resumption.summed(self._way, self._used, done)
        if self._way is None:
            await self._attempt.compare(self._request, self._record.text if self._record.whole else None)

    async def _give_up(self, error: RetryElsewhere) -> None:
        """Leaves an executor. What it did wrong is remembered, if the attempt did not notice itself: it does not read answers."""
        if not self._attempt.broken and error.code != DIVERGED:
            await self._attempt.failed(error, gone=False)
        await self._attempt.close()

    async def _begin_anew(self, error: RetryElsewhere) -> None:
        logger.info("{} failed within its answer; it is asked for elsewhere: {}", checksum(self.executor), error)
        self._attempts.begin_anew(as_new=self._one_more())
        self._began(await self._attempts.next(self._request))

    async def _resume(self, error: RetryElsewhere) -> bytes:
        """The first events of another executor that goes on; `error` if none does."""
        record = self._record
        if record.finished and self._request.choices == 1:  # all was said but the count
            self.done = await self._counted()
            return b""
        if not self._one_more():
            raise error
        record.cut()
        for way in resumption.ways(self._request, record):
            try:
                return await self._go_on(way, error)
            except (RetryElsewhere, CallerFault) as problem:
                logger.info("nobody goes on by {}: {}", way, problem)
        raise error

    async def _go_on(self, way: resumption.Way, error: RetryElsewhere) -> bytes:
        request, said = self._request, self._record.text
        used = await asyncio.to_thread(tokens.count, said, self._encoding)
        if way == "prefill":
            try:
                request = resumption.follow_up(request, said, used)
            except ValueError:
                self.done = await self._counted()
                return ending(self._record.head, request.operation, "length")
        stops = resumption.stops(request) if way == "prefill" else ()
        self._attempts.go_on(self._attempt.model)
        while True:
            attempt = await self._attempts.next(request)
            splice = Splice(self._record.head, said, said if way == "regenerate" else "", stops)
            self._attempt, self._splice, self._way, self._used = attempt, splice, way, used
            try:
                block = self._seen(attempt.first)
            except RetryElsewhere as problem:
                await self._give_up(problem)
                if problem.code != DIVERGED or not self._one_more():
                    raise
                continue  # somebody else may agree
            logger.info("an answer broke off ({}); {} goes on by {}", error, checksum(attempt.executor), way)
            return block

    def _one_more(self) -> bool:
        """Whether `routing.continuations` allows for one more part; each is paid for like a request of its own."""
        self._continuations += 1
        return self._continuations <= self._attempts.settings.continuations

    @property
    def _encoding(self) -> str:
        return counting.known(self._attempt.encoding)

    async def _counted(self) -> Done:
        """What has come, by our own count."""
        request = self._request
        inputs = await asyncio.to_thread(prompt.count, request.operation, request.body, self._encoding)
        outputs = await asyncio.to_thread(tokens.count, self._record.text, self._encoding)
        return Done(inputs, outputs)
