"""One question to a validator over the bridge, one answer. It never asks twice and believes nothing by itself."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec

from lloom.adapters.bridge import Stream
from lloom.adapters.routing.pool import Pool
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.identity import NodeId, checksum
from lloom.core.messages import MAX_PAGE, Call, decode
from lloom.core.offer import Endpoint

T = TypeVar("T")

Whereabouts = tuple[NodeId, Endpoint]
"""Who a validator is, and where it listens."""


async def ask(
    pool: Pool,
    validator: Whereabouts,
    call: Call,
    answer: msgspec.msgpack.Decoder[T],
    seconds: float,
    body: bytes = b"",
) -> T:
    """What `validator` answers to `call`, with `body` after it. RetryElsewhere if it does not within `seconds`; PeerFault if what
    comes is no such answer.
    """
    return decode(await told(pool, validator, call, seconds, body), answer)


async def told(pool: Pool, validator: Whereabouts, call: Call, seconds: float, body: bytes = b"") -> bytes:
    """The bytes of the answer to `call`, at most `MAX_PAGE`; errors as `ask`."""
    who, endpoint = validator
    try:
        async with asyncio.timeout(seconds):
            connection = await pool.connection(who, endpoint)
            stream = await connection.open(call)
            try:
                await stream.send(body)
                await stream.finish()
                return await read(stream, MAX_PAGE)
            finally:
                stream.cancel()
    except TimeoutError as error:
        raise RetryElsewhere(
            f"the validator {checksum(who)} did not answer within {seconds:g} s", status=504, code="unreachable"
        ) from error


async def read(stream: Stream, limit: int) -> bytes:
    """All DATA of `stream`; PeerFault if that is more than `limit` bytes."""
    parts: list[bytes] = []
    size = 0
    while (part := await stream.receive()) is not None:
        size += len(part)
        if size > limit:
            raise PeerFault("a message without end", code="too_long")
        parts.append(part)
    return b"".join(parts)
