"""One probe: requests to one model of one worker, measured, perhaps paid. It judges nothing, and looks like any client's."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from lloom.adapters.bridge import Connection
from lloom.adapters.routing.attempt import Attempt
from lloom.adapters.routing.purchase import Tab
from lloom.adapters.routing.purse import Paid
from lloom.adapters.routing.statement import LANE_TIMEOUT
from lloom.adapters.validator.shopper import Shopper
from lloom.core import completion, odds, tokens
from lloom.core.api import chat
from lloom.core.api.request import ApiRequest
from lloom.core.errors import CallerFault, PeerFault, RetryElsewhere
from lloom.core.odds import Place
from lloom.core.order import Nonce, Order
from lloom.core.panel import Said, words
from lloom.core.payment import counting
from lloom.core.questions import Question
from lloom.core.routing.candidate import Candidate
from lloom.core.vouch import Probe

_UNSEEN: Final = frozenset({429, 402})
"""Too busy, or it wants more money: neither tells how a model answers."""
_SEED: Final = "seed"
_LOGPROBS: Final = "logprobs"
_COMPARED: Final = 4096
"""Characters of an answer that are kept until it has been compared: more than what is asked for, not all that may be sent."""


class Unpaid(RetryElsewhere):
    """Raised when our own limits forbid to pay for a question: no fault of the executor's."""


class _Unseen(Exception):
    """Raised when nothing can be told of the executor."""


@dataclass(frozen=True, slots=True)
class Visit:
    """Who asks which worker for which model, until when (on the loop's clock)."""

    shopper: Shopper
    connection: Connection
    candidate: Candidate
    deadline: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of a probe. `said`: the answer to the question, None if there was none."""

    probe: Probe
    said: Said | None = None


@dataclass(frozen=True, slots=True)
class _Answered:
    said: Said
    first: float
    """Seconds to the first content."""


async def probe(visit: Visit, question: Question, long: Question) -> Seen | None:
    """What became of a question and of a long one; None if that tells nothing: the executor is busy, or wants more money.

    Unpaid if we cannot, or may not, pay for it.
    """
    model = visit.candidate.terms.id
    try:
        answered = await _tried(_question(visit, question))
        if answered is None:
            return Seen(Probe(model, answered=False))
        at_length = await _tried(_ask(visit, long, {}))
    except _Unseen:
        return None
    context = 0 if at_length is None else await _count(long.text, visit.candidate.terms.encoding)
    said, first = answered.said, answered.first
    rest = said.seconds - first
    rate = (said.tokens - 1) / rest if said.tokens > 1 and rest > 0 else 0.0
    return Seen(Probe(model, True, round(1000 * first), round(min(rate, 1e9), 2), context), said)


async def _tried(asking: Awaitable[_Answered]) -> _Answered | None:
    """None if the executor fails, or finds fault with a plain question: then it does not serve. _Unseen, Unpaid."""
    try:
        return await asking
    except Unpaid:
        raise
    except RetryElsewhere as error:
        if error.status in _UNSEEN:
            raise _Unseen from error
        return None
    except CallerFault:
        return None


async def _question(visit: Visit, question: Question) -> _Answered:
    """Asks so that honest executors answer alike; without that where a backend knows no such words."""
    able, alike, telling = visit.candidate.terms.features, dict[str, Any](temperature=0), dict[str, Any]()
    if _SEED in able:
        alike["seed"] = question.seed
    if question.logprobs and _LOGPROBS in able:
        telling = {"logprobs": True, "top_logprobs": question.logprobs}
    for fields in filter(None, ({**alike, **telling} if telling else {}, alike)):
        try:
            return await _ask(visit, question, fields)
        except CallerFault:
            continue
    return await _ask(visit, question, {})


async def _ask(visit: Visit, question: Question, alike: dict[str, Any]) -> _Answered:
    """One request from its first byte to its last. RetryElsewhere if it fails, PeerFault if what comes is no answer to it."""
    loop, candidate = asyncio.get_running_loop(), visit.candidate
    body = {
        "model": candidate.terms.id,
        "messages": [{"role": "user", "content": question.text}],
        "max_tokens": min(question.tokens, candidate.terms.max_output),
        "stream": True,
        **alike,
    }
    request = chat.parse(msgspec.json.encode(body))
    order, paid = await _order(visit, request)
    answer = Attempt(candidate, visit.deadline, visit.shopper.keeping, loop.time)
    began = loop.time()
    try:
        await answer.begin(visit.connection, order, request, paid)
        first = loop.time()
        said, account = await _told(answer)
    finally:
        await answer.close()
    seconds = loop.time() - began
    claimed = answer.done.output_tokens if answer.done is not None else 0
    counted = await _count(said, candidate.terms.encoding)
    return _Answered(Said(words(said[:_COMPARED]), counted, seconds, claimed, account), first - began)


async def _order(visit: Visit, request: ApiRequest) -> tuple[Order, Paid | None]:
    """The signed order, and what pays for it. Unpaid if that cannot be, or may not."""
    shopper, candidate = visit.shopper, visit.candidate
    # As long as clients wait, not as long as we do: nobody shall know a probe by its hurry.
    deadline = math.ceil(time.time() + shopper.keeping.settings.total_seconds)
    ending = Nonce(os.urandom(32), os.urandom(16)), deadline
    if candidate.payment is None:
        return shopper.client.order(request, candidate, *ending), None
    purse = shopper.purses.of(candidate.payment)
    if purse is None or purse.problem() is not None:
        raise Unpaid("there is nothing to pay this executor with", status=402, code="payment_required")
    try:
        return await purse.order(candidate, request, Tab(), visit.connection, ending)
    except RetryElsewhere as error:
        gone = visit.connection.session.closed or error.code == LANE_TIMEOUT
        if gone or isinstance(error, PeerFault):
            raise
        raise Unpaid(str(error), status=402, code=error.code) from error


async def _told(answer: Attempt) -> tuple[str, tuple[Place, ...]]:
    """What the whole answer says, however it says it, and how likely its tokens were, if it tells."""
    fold = completion.Fold()
    async for data in answer:
        fold.feed(data)
    assert answer.done is not None
    whole: dict[str, Any] = msgspec.json.decode(fold.completion(answer.done))
    choice = whole["choices"][0]
    parts = (choice["message"].get(key) for key in ("reasoning_content", "content"))
    text = "".join(part for part in parts if isinstance(part, str))
    return text, odds.read((choice["logprobs"] or {}).get("content"))


async def _count(text: str, encoding: str) -> int:
    """Tokens of `text`; by a usual encoding where the offer names one that we do not have."""
    return await asyncio.to_thread(tokens.count, text, counting.known(encoding))
