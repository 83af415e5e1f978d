"""The rest of an answer whose connection broke: the same signed order, sent once more, gets the same answer. It bills nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from lloom.adapters.bridge import Connection, Stream
from lloom.core.billing.response import ResponseHash
from lloom.core.errors import PeerFault, RetryElsewhere
from lloom.core.messages import ModelCall

RETURNS: Final = 3
"""How often one answer is asked for again."""
SECONDS: Final = 2.0
"""For a handshake and what was heard before: the next executor may be waiting."""

Connect = Callable[[], Awaitable[Connection]]
"""A connection to the Worker that answered."""


class Returning:
    """Asks for the rest of the answer to `call` and `body` over what `connect` gives."""

    def __init__(self, connect: Connect, call: ModelCall, body: bytes) -> None:
        self._connect = connect
        self._call = call
        self._body = body
        self._left = RETURNS

    async def resume(self, heard: ResponseHash) -> tuple[Stream, bytes]:
        """A stream on which the answer goes on after what was `heard` of it, and what of that has come already.

        RetryElsewhere or CallerFault if the Worker is not there, has it no more, says something else now, or was asked too often.
        """
        if not self._left:
            raise RetryElsewhere(f"its connections broke {RETURNS + 1} times", code="connection_lost")
        self._left -= 1
        try:
            async with asyncio.timeout(SECONDS):
                return await self._ask(await self._connect(), heard)
        except TimeoutError as error:
            raise RetryElsewhere("it takes too long", code="unreachable") from error

    async def _ask(self, connection: Connection, heard: ResponseHash) -> tuple[Stream, bytes]:
        stream = await connection.open(self._call)
        try:
            await stream.send(self._body)
            await stream.finish()
            return stream, await _after(heard, stream, self._call.salt)
        except BaseException:
            stream.cancel()
            raise


async def _after(heard: ResponseHash, stream: Stream, salt: bytes) -> bytes:
    """What comes after the bytes that were `heard`, which have to be the same as before."""
    said, rest = ResponseHash(salt, 0), b""
    while said.length < heard.length:
        data = await stream.receive()
        if data is None:
            raise PeerFault("the executor ended an answer earlier than before", code="another_answer")
        missing = heard.length - said.length
        said.update(data[:missing])
        rest = data[missing:]
    if said.digest(said.length) != heard.digest(heard.length):
        raise PeerFault("the executor gives another answer than before", code="another_answer")
    return rest
