"""The router as somebody with a key sees it: its models, within its allowance. It never looks into an answer.

What a request takes is estimated and set aside before anything is asked, and settled by what the executor counted, as far as that
can be: a lie must not lock a key for months. Where an answer has no end (the caller left, the executor broke off), each event
counts as a token, beside the prompt's estimate.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

from msgspec.structs import replace

from lloom.adapters.gateway.door import VISIT
from lloom.adapters.gateway.endpoint import Answer, Router
from lloom.core.allowance import Allowance
from lloom.core.api.dialect import Whole
from lloom.core.api.request import ApiRequest
from lloom.core.identity import NodeId
from lloom.core.messages import Done
from lloom.core.offer import ModelOffer
from lloom.core.routing.explain import Verdict
from lloom.core.sse import END

BYTES_PER_TOKEN: Final = 4
"""Of a prompt's text, about."""
BESIDES: Final = 1 << 16
"""Tokens that a prompt may have beyond one a byte: a template's, and those of pictures that stand there by their address."""


class Backend(Router, Protocol):
    """What is needed of `lloom.adapters.routing.router.Router`."""

    async def models(self) -> list[tuple[NodeId, ModelOffer]]: ...
    async def aliases(self) -> dict[str, list[tuple[NodeId, ModelOffer]]]: ...
    async def offers(self, model: str) -> list[ModelOffer]: ...
    async def explain(self, request: ApiRequest) -> list[Verdict]: ...
    def reputation(self, executor: NodeId) -> float: ...


class Metered:
    """Asks `router` for who visits. `assumed`: tokens of an answer that its caller did not limit; `spent`: see Guests."""

    def __init__(self, router: Backend, assumed: int, spent: Callable[[str, int, int], None]) -> None:
        self._router = router
        self._assumed = assumed
        self._spent = spent

    async def ask(self, request: ApiRequest) -> Answer:
        """See `Router`. Errors of `Allowance.reserve`."""
        allowance = VISIT.get().allowance
        if allowance is None:
            return await self._router.ask(request)
        inputs = request.prompts * (request.text_bytes // BYTES_PER_TOKEN + 1)
        reserved = inputs + self._outputs(request)
        allowance.reserve(request.model, reserved, asyncio.get_running_loop().time(), time.time())

        def settle(used: int) -> None:
            loop = asyncio.get_running_loop()
            self._spent(allowance.name, *allowance.settle(reserved, used, loop.time(), time.time()))

        try:
            answer = await self._router.ask(replace(request, caller=allowance.name))
        except BaseException:
            settle(0)
            raise
        return _Counted(answer, inputs, len(request.body) + BESIDES, settle)

    async def models(self) -> list[tuple[NodeId, ModelOffer]]:
        """Those that the visitor may ask."""
        found = await self._router.models()
        allowance: Allowance | None = VISIT.get().allowance
        return found if allowance is None else [each for each in found if allowance.allows(each[1].id)]

    async def aliases(self) -> dict[str, list[tuple[NodeId, ModelOffer]]]:
        """Those that the visitor may ask by, whatever they stand for."""
        found = await self._router.aliases()
        allowance: Allowance | None = VISIT.get().allowance
        return {name: meant for name, meant in found.items() if allowance is None or allowance.allows(name)}

    async def offers(self, model: str) -> list[ModelOffer]:
        """Those of a model that the visitor may ask; none of any other."""
        allowance: Allowance | None = VISIT.get().allowance
        return await self._router.offers(model) if allowance is None or allowance.allows(model) else []

    def reputation(self, executor: NodeId) -> float:
        """See `Router`."""
        return self._router.reputation(executor)

    def _outputs(self, request: ApiRequest) -> int:
        if request.operation == "embeddings":
            return 0
        most = request.max_output or self._assumed
        return (min(most, self._assumed) if request.at_most else most) * request.choices


class _Counted:
    """An answer that says at its end what it took. Its prompt has about `inputs` tokens, and `most` at most."""

    def __init__(self, answer: Answer, inputs: int, most: int, settle: Callable[[int], None]) -> None:
        self._answer = answer
        self._inputs = inputs
        self._most = most
        self._events = self._bytes = 0
        self.saw(answer.first)
        self._settle: Callable[[int], None] | None = settle

    @property
    def executor(self) -> NodeId:
        return self._answer.executor

    @property
    def attempts(self) -> int:
        return self._answer.attempts

    @property
    def routing(self) -> str:
        return self._answer.routing

    @property
    def deadline(self) -> float:
        return self._answer.deadline

    @property
    def first(self) -> bytes:
        return self._answer.first

    @property
    def done(self) -> Done | None:
        return self._answer.done

    async def read(self) -> bytes | None:
        data = await self._answer.read()
        self.saw(data or b"")
        return data

    async def folded(self, make: Callable[[], Whole]) -> bytes:
        self._events = self._bytes = 0
        return await self._answer.folded(lambda: _Tally(make(), self))

    def saw(self, data: bytes) -> None:
        """These events came; what is begun anew was paid for as well."""
        self._events += data.count(END)
        self._bytes += len(data)

    async def close(self) -> None:
        await self._answer.close()
        settle, self._settle = self._settle, None
        if settle is not None:
            settle(self._used())

    def _used(self) -> int:
        done = self.done
        if done is None:
            return self._inputs + self._events
        return min(done.input_tokens, self._most) + min(done.output_tokens, self._bytes)


class _Tally:
    """A whole answer that is counted while it grows."""

    def __init__(self, whole: Whole, counted: _Counted) -> None:
        self._whole = whole
        self._counted = counted

    def feed(self, data: bytes) -> None:
        self._counted.saw(data)
        self._whole.feed(data)

    def end(self, done: Done) -> bytes:
        return self._whole.end(done)
