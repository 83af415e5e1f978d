"""The raw path to anything that speaks OpenAI: JSON up, SSE bytes or JSON down as they come. It never looks into either."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from lloom.adapters.llm.failure import MAX_BODY, cut, failure, stalled, unreachable
from lloom.adapters.llm.http import Address, Broken, Connection, Connections
from lloom.core.api.request import Operation
from lloom.core.errors import ConfigError, RetryElsewhere
from lloom.core.messages import FROM_EXECUTOR

PATHS: Final[dict[Operation, str]] = {
    "chat": "chat/completions",
    "completions": "completions",
    "embeddings": "embeddings",
}

KEEP_ALIVE_SECONDS: Final = 4.0
"""uvicorn, hence vLLM and many others, drops an idle connection after 5 s: let go earlier, or a request meets the end."""

MAX_WHOLE: Final = 256 * 1024 * 1024
"""Bytes of an answer that is no stream: 2,048 vectors of 3,072 floats, each written with all its digits, are 130 MB."""
TAIL: Final = 4096
_ENDING: Final = re.compile(rb'\[DONE\]|"finish_reason":\s*"')
"""One of these stands in the last TAIL bytes of every whole answer."""


STREAM: Final = "text/event-stream"
JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a backend is and how long it is waited for, in seconds; `connections` are open at once at most."""

    base_url: str
    key: str | None
    connections: int
    connect_seconds: float
    idle_seconds: float
    reuse: bool
    """Whether a connection serves another request afterwards."""


class Upstream:
    """A pool of connections to one target. Made within a running event loop, closed by `close`."""

    def __init__(self, target: Target) -> None:
        """ConfigError if the target's URL is none."""
        self._target = target
        try:
            address = Address.of(target.base_url)
        except ValueError as error:
            raise ConfigError(f"base_url: {error}") from error
        self._connections = Connections(address, target.connections, KEEP_ALIVE_SECONDS if target.reuse else 0.0)
        self._heads = {operation: _head(address, path, target) for operation, path in PATHS.items()}

    async def close(self) -> None:
        """Closes every connection."""
        self._connections.close()

    async def stream(self, operation: Operation, body: bytes) -> AsyncGenerator[bytes, None]:
        """The answer to `body` as SSE bytes; leaving early closes the connection, which stops the generation.

        Raises RetryElsewhere or CallerFault by the status (`failure`), and RetryElsewhere for silence and broken connections.
        """
        async with self._answer(operation, body, STREAM) as connection:
            tail = b""
            while data := await connection.read(self._target.idle_seconds):
                yield data
                tail = (tail + data)[-TAIL:]
            if not _ENDING.search(tail):
                raise cut("it has no end")

    async def whole(self, operation: Operation, body: bytes) -> bytes:
        """The answer to `body` where it is one JSON document. Raises as `stream`."""
        answer = bytearray()
        async with self._answer(operation, body, JSON) as connection:
            while data := await connection.read(self._target.idle_seconds):
                answer += data
                if len(answer) > MAX_WHOLE:
                    raise cut("it has no end")
        return bytes(answer)

    @asynccontextmanager
    async def _answer(self, operation: Operation, body: bytes, kind: str) -> AsyncIterator[Connection]:
        """Where the answer comes, once it has begun and is of that kind. What breaks while it is read is explained."""
        connection, idle = await self._connection(), self._target.idle_seconds
        try:
            connection.ask(b"%bcontent-length: %d\r\n\r\n%b" % (self._heads[operation], len(body), body))
            await connection.head(idle)
            await self._check(connection, kind)
            yield connection
        except TimeoutError:
            raise stalled(idle) from None
        except Broken as error:
            raise cut(str(error)) from None
        finally:
            self._connections.give_back(connection)

    async def _connection(self) -> Connection:
        seconds = self._target.connect_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._connections.take()
        except TimeoutError:
            raise unreachable(f"no connection within {seconds:g} s") from None
        except OSError as error:
            raise unreachable(type(error).__name__) from None

    async def _check(self, connection: Connection, wanted: str) -> None:
        if connection.status != 200:
            body = b""
            while len(body) < MAX_BODY and (data := await connection.read(self._target.idle_seconds)):
                body += data
            raise failure(connection.status, body[:MAX_BODY], connection.headers)
        kind = connection.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != wanted:
            raise RetryElsewhere(
                f"the backend answered {kind[:64] or 'nothing known'}, not {wanted}", code="backend_error"
            )


def _head(address: Address, path: str, target: Target) -> bytes:
    """Of every request, but for its length and the empty line. A redirect is not followed: prompt and key are for nobody else."""
    lines = [
        f"POST {address.path}/{path} HTTP/1.1",
        f"host: {address.name}",
        "content-type: application/json",
        f"accept: {STREAM}, {JSON}",
        "accept-encoding: identity",
        f"{FROM_EXECUTOR}: 1",
        *([] if target.reuse else ["connection: close"]),
        *([] if target.key is None else [f"authorization: Bearer {target.key}"]),
    ]
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")
