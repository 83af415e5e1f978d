"""The raw path to anything that speaks OpenAI: JSON up, SSE bytes or JSON down as they come. It never looks into either."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
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

    async def stream(self, operation: Operation, body: bytes) -> AsyncGenerator[bytes, None]:
        """The answer to `body` as SSE bytes; leaving early closes the connection, which stops the generation.

        Raises RetryElsewhere or CallerFault by the status (`failure`), and RetryElsewhere for silence and broken connections.
        """
        async with self._answer(operation, body, STREAM) as content:
            tail = b""
            while data := await content.readany():
                yield data
                tail = (tail + data)[-TAIL:]
            if not _ended(tail):
                raise cut("it has no end")

    async def whole(self, operation: Operation, body: bytes) -> bytes:
        """The answer to `body` where it is one JSON document. Raises as `stream`."""
        answer = bytearray()
        async with self._answer(operation, body, JSON) as content:
            while data := await content.readany():
                answer += data
                if len(answer) > MAX_WHOLE:
                    raise cut("it has no end")
        return bytes(answer)

    @asynccontextmanager
    async def _answer(self, operation: Operation, body: bytes, kind: str) -> AsyncIterator[aiohttp.StreamReader]:
        """Where the answer comes, once it has begun and is of that kind. What breaks while it is read is explained."""
        response = await self._post(operation, body)
        try:
            await _check(response, kind)
            yield response.content
        except TimeoutError:
            raise stalled(self._target.idle_seconds) from None
        except (aiohttp.ClientError, OSError) as error:
            raise cut(type(error).__name__) from None
        finally:
            response.close()

    async def _post(self, operation: Operation, body: bytes) -> aiohttp.ClientResponse:
        url = f"{self._target.base_url.rstrip('/')}/{PATHS[operation]}"
        try:
            # A redirect would carry prompt and key to somebody else.
            return await self._session.post(url, data=body, allow_redirects=False)
        except aiohttp.ConnectionTimeoutError:
            raise unreachable(f"no connection within {self._target.connect_seconds:g} s") from None
        except TimeoutError:
            raise stalled(self._target.idle_seconds) from None
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
            raise unreachable(type(error).__name__) from None
        except (aiohttp.ClientError, OSError) as error:
            raise cut(type(error).__name__) from None


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
