"""The raw path to anything that speaks OpenAI: JSON up, SSE bytes or JSON down as they come. It never looks into either."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import aiohttp

from lloom.adapters.llm.failure import MAX_BODY, cut, failure, stalled, unreachable
from lloom.core.api.request import Operation
from lloom.core.errors import RetryElsewhere
from lloom.core.messages import FROM_EXECUTOR
from lloom.core.sse import DONE

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
"""Bytes at the end of every whole answer in which it says so."""
_FINISHED: Final = re.compile(rb'"finish_reason":\s*"')

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
        self._target = target
        self._urls = {operation: f"{target.base_url.rstrip('/')}/{path}" for operation, path in PATHS.items()}
        headers = {"content-type": "application/json", "accept": f"{STREAM}, {JSON}", "accept-encoding": "identity"}
        headers[FROM_EXECUTOR] = "1"
        if target.key is not None:
            headers["authorization"] = f"Bearer {target.key}"
        reuse = {"keepalive_timeout": KEEP_ALIVE_SECONDS} if target.reuse else {"force_close": True}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=target.connections, **reuse),
            timeout=aiohttp.ClientTimeout(total=None, connect=target.connect_seconds, sock_read=target.idle_seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Closes every connection."""
        await self._session.close()

    def stream(self, operation: Operation, body: bytes) -> AsyncGenerator[bytes, None]:
        """The answer to `body` as SSE bytes; leaving early closes the connection, which stops the generation.

        Raises RetryElsewhere or CallerFault by the status (`failure`), and RetryElsewhere for silence and broken connections.
        """
        return self._ask(operation, body, STREAM)

    async def whole(self, operation: Operation, body: bytes) -> bytes:
        """The answer to `body` where it is one JSON document. Raises as `stream`."""
        answer = bytearray()
        async with aclosing(self._ask(operation, body, JSON)) as pieces:
            async for data in pieces:
                answer += data
                if len(answer) > MAX_WHOLE:
                    raise cut("it has no end")
        return bytes(answer)

    async def _ask(self, operation: Operation, body: bytes, kind: str) -> AsyncGenerator[bytes, None]:
        """The answer as it comes, if it is of that kind. What breaks on the way is explained."""
        response, tail = None, b""
        try:
            # A redirect would carry prompt and key to somebody else.
            response = await self._session.post(self._urls[operation], data=body, allow_redirects=False)
            await _check(response, kind)
            content = response.content
            while data := await content.readany():
                yield data
                tail = (tail + data)[-TAIL:]
        except (aiohttp.ClientError, OSError) as error:
            raise self._explained(error) from None
        finally:
            if response is not None and not response.closed:
                response.close()
        if kind == STREAM and not _ended(tail):
            raise cut("it has no end")

    def _explained(self, error: aiohttp.ClientError | OSError) -> RetryElsewhere:
        match error:
            case aiohttp.ConnectionTimeoutError():
                return unreachable(f"no connection within {self._target.connect_seconds:g} s")
            case TimeoutError():
                return stalled(self._target.idle_seconds)
            case aiohttp.ClientConnectorError() | aiohttp.InvalidURL():
                return unreachable(type(error).__name__)
            case _:
                return cut(type(error).__name__)


def _ended(tail: bytes) -> bool:
    """Whether these are the last bytes of a whole answer. Nearly all say `[DONE]`; a pattern takes thirty times as long."""
    return DONE in tail or _FINISHED.search(tail) is not None


async def _check(response: aiohttp.ClientResponse, kind: str) -> None:
    if response.status != 200:
        body = b""
        while len(body) < MAX_BODY and (data := await response.content.read(MAX_BODY - len(body))):
            body += data
        raise failure(response.status, body, response.headers)
    if response.content_type != kind:
        raise RetryElsewhere(f"the backend answered {response.content_type}, not {kind}", code="backend_error")
