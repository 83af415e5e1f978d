"""One probe: a real request to one model of one worker, measured. It judges nothing, and looks like any client's."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import msgspec

from lloom.adapters.bridge import Connection
from lloom.adapters.routing.attempt import Attempt, Keeping
from lloom.core import completion, questions, tokens
from lloom.core.api import chat
from lloom.core.errors import CallerFault, PeerFault, RetryElsewhere
from lloom.core.order import Client, Nonce
from lloom.core.routing.candidate import Candidate
from lloom.core.settings import ValidatorSettings
from lloom.core.vouch import Probe

_BUSY: Final = 429
_PADDED: Final = 16
"""An executor may count so many tokens more than we do, beside a factor of two: backends differ, frauds do not stop there."""


@dataclass(frozen=True, slots=True)
class Asker:
    """In whose name probes are made, and how long they may take."""

    client: Client
    keeping: Keeping
    settings: ValidatorSettings
    rng: Random


@dataclass(frozen=True, slots=True)
class _Measured:
    first: float
    """Seconds to the first content."""
    rest: float
    """Seconds from there to the end."""
    tokens: int
    """Of the answer, by our own count."""


async def probe(asker: Asker, connection: Connection, candidate: Candidate) -> Probe | None:
    """What became of a short request and of a long one; None if the executor was too busy to take them.

    Takes at most `validator.probe_timeout_seconds`.
    """
    terms, settings = candidate.terms, asker.settings
    deadline = asyncio.get_running_loop().time() + settings.probe_timeout_seconds
    limit = min(settings.probe_tokens, terms.max_output)
    try:
        short = await _ask(asker, connection, candidate, questions.question(asker.rng), limit, deadline)
    except RetryElsewhere as error:
        return None if error.status == _BUSY else Probe(terms.id, answered=False)
    except CallerFault:  # an executor that finds fault with a plain question does not serve
        return Probe(terms.id, answered=False)
    context = await _context(asker, connection, candidate, deadline)
    rate = (short.tokens - 1) / short.rest if short.tokens > 1 and short.rest > 0 else 0.0
    return Probe(terms.id, True, round(1000 * short.first), round(min(rate, 1e9), 2), context)


async def _context(asker: Asker, connection: Connection, candidate: Candidate, deadline: float) -> int:
    """Tokens of the longest prompt that was answered; 0 if the long one was not."""
    terms = candidate.terms
    wanted = min(terms.context // 2, asker.settings.probe_context)
    text = questions.long_question(asker.rng, wanted)
    try:
        await _ask(asker, connection, candidate, text, 1, deadline)
    except (RetryElsewhere, CallerFault):
        return 0
    return await _count(text, terms.encoding)


async def _ask(
    asker: Asker, connection: Connection, candidate: Candidate, text: str, limit: int, deadline: float
) -> _Measured:
    """One request from its first byte to its last. RetryElsewhere if it fails, PeerFault if what comes is no answer to it."""
    loop = asyncio.get_running_loop()
    body = {"model": candidate.terms.id, "messages": [{"role": "user", "content": text}], "max_tokens": limit}
    request = chat.parse(msgspec.json.encode({**body, "stream": True}))
    expires = math.ceil(time.time() + max(0.0, deadline - loop.time()))
    order = asker.client.order(request, candidate, Nonce(os.urandom(32), os.urandom(16)), expires)
    answer = Attempt(candidate, deadline, asker.keeping)
    began = loop.time()
    try:
        await answer.begin(connection, order, request)
        first = loop.time()
        said = await _text(answer)
    finally:
        await answer.close()
    ended = loop.time()
    counted = await _count(said, candidate.terms.encoding)
    claimed = answer.done.output_tokens if answer.done is not None else 0
    if claimed > 2 * counted + _PADDED:
        raise PeerFault(f"{claimed} tokens are billed for an answer of {counted}", code="bad_usage")
    return _Measured(first - began, ended - first, counted)


async def _text(answer: Attempt) -> str:
    """What the whole answer says, however it says it."""
    fold = completion.Fold()
    async for data in answer:
        fold.feed(data)
    assert answer.done is not None
    whole: dict[str, Any] = msgspec.json.decode(fold.completion(answer.done))
    message = whole["choices"][0]["message"]
    return "".join(part for key in ("reasoning_content", "content") if isinstance(part := message.get(key), str))


async def _count(text: str, encoding: str) -> int:
    """Tokens of `text`; by a usual encoding where the offer names one that we do not have."""
    counting: Callable[[str, str], int] = tokens.count
    known = encoding if encoding in tokens.ENCODINGS else "o200k_base"
    return await asyncio.to_thread(counting, text, known)
