"""One HTTP exchange over ASGI: its body, its answer, and whether anybody still listens. It knows nothing of models."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.types import Message, Receive, Scope, Send

from lloom.adapters.gateway.protocol import ARRIVED, LOST
from lloom.core.api.dialect import Dialect, Failure, Headers
from lloom.core.errors import CallerFault

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_JSON: Final = (b"content-type", b"application/json")
_STREAM: Final[Headers] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Gone(Exception):
    """Raised when the caller closed the connection: there is nobody to answer."""


class Exchange:
    """A request and the answer to it, which is either one `reply`, or `begin`, `write` …, `end`; errors in `dialect`."""

    __slots__ = (
        "_boundary",
        "_dialect",
        "_headers",
        "_receive",
        "_send",
        "_writing",
        "also",
        "answer_headers",
        "copied",
        "failed",
        "request_id",
        "scope",
        "status",
        "written_at",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, dialect: Dialect) -> None:
        self.scope = scope
        self._headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        self.status = 0
        """Of the answer; 0 until it has begun."""
        self.answer_headers: Headers = []
        """Without those that only this exchange bears."""
        self.copied: Callable[[bytes], None] = lambda _: None
        """Hears of all that is sent of the answer's body."""
        self.written_at = 0.0
        """By `time.monotonic`."""
        self.request_id = self._request_id()
        self.also: Callable[[], Headers] = list
        """Headers that the answer bears besides, as they are when it begins."""
        self.failed: Callable[[Failure], bytes] = lambda _: b""
        """How a stream that has begun says that it failed; whoever begins one sets it."""
        self._dialect = dialect
        self._receive = receive
        self._send = send
        self._boundary = True
        self._writing = False

    def header(self, name: bytes) -> bytes | None:
        """The value of the first header `name` (lower case)."""
        return self._headers.get(name)

    async def body(self, limit: int, seconds: float) -> bytes:
        """The whole body. CallerFault: 413 over `limit` bytes, 408 if nothing comes for `seconds`; Gone if the caller left."""
        declared = self.header(b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        parts, size, more = [], 0, True
        while more:
            message = await self._next(seconds)
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
            more = message.get("more_body", False)
        return b"".join(parts)

    async def unless_gone(self, work: Awaitable[None]) -> None:
        """Awaits `work`, and cancels it when the caller leaves (then Gone). The body must have been read."""
        # Only our own server tells; within another one, callers are taken to stay.
        lost: asyncio.Future[None] = self.scope.get(LOST) or asyncio.get_running_loop().create_future()
        task, left = asyncio.current_task(lost.get_loop()), False
        assert task is not None
        before = task.cancelling()

        def leave(_: asyncio.Future[None]) -> None:
            nonlocal left
            left = True
            task.cancel()

        lost.add_done_callback(leave)
        try:
            await work
        except asyncio.CancelledError:
            if left and task.uncancel() <= before:
                raise Gone from None
            raise
        else:
            if left:
                task.uncancel()
        finally:
            lost.remove_done_callback(leave)

    async def repeat(self, status: int, headers: Headers, body: bytes) -> None:
        """The answer of another exchange; a header says so."""
        await self._start(status, [*headers, (b"idempotent-replayed", b"true")])
        await self._pass(body)

    async def reply(self, status: int, body: bytes, headers: Headers, kind: tuple[bytes, bytes] = _JSON) -> None:
        """The whole answer at once."""
        await self._start(status, [kind, (b"content-length", b"%d" % len(body)), *headers])
        await self._pass(body)

    async def begin(self, headers: Headers) -> None:
        """A stream of events begins."""
        await self._start(200, [*_STREAM, *headers])

    async def write(self, data: bytes) -> None:
        """The next bytes of the stream, perhaps none; waits for a slow reader."""
        if not data:
            return
        self._writing = True
        await self._pass(data, more=True)
        self._writing = False
        self._boundary = data.endswith((b"\n\n", b"\r\n\r\n"))
        self.written_at = time.monotonic()

    async def aside(self, event: bytes) -> None:
        """An event that clients skip, if this is a place for one."""
        if self._boundary and not self._writing:
            await self.write(event)

    async def end(self, data: bytes) -> None:
        """The last events of the stream, whole ones."""
        gap = b"" if self._boundary else b"\n\n"
        await self._pass(gap + data)

    async def fail(self, failure: Failure) -> None:
        """Says what went wrong: as a reply, or as the last event of a stream that has begun."""
        if not self.status:
            body = self._dialect.refusal(failure, self.request_id.decode())
            await self.reply(failure.status, body, failure.headers)
        else:
            await self.end(self.failed(failure))

    async def _start(self, status: int, headers: Headers) -> None:
        self.status, self.answer_headers = status, headers
        named = [*headers, *self.also(), (self._dialect.id_header, self.request_id)]
        await self._send({"type": "http.response.start", "status": status, "headers": named})

    async def _pass(self, body: bytes, *, more: bool = False) -> None:
        self.copied(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _next(self, seconds: float) -> dict[str, Any]:
        if ARRIVED in self.scope:
            message = await self._receive()
        else:
            message = await self._in_time(self._receive(), seconds)
        if message["type"] == "http.disconnect":
            raise Gone
        return dict(message)

    async def _in_time(self, message: Awaitable[Message], seconds: float) -> Message:
        try:
            async with asyncio.timeout(seconds):
                return await message
        except TimeoutError:
            text = f"Nothing more of the request's body came for {seconds:g} s."
            raise CallerFault(text, status=408, code="request_timeout") from None

    def _request_id(self) -> bytes:
        """The caller's own if it is a decent one, else a new one."""
        given = self.header(b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given
        return b"req_" + os.urandom(16).hex().encode()


def _too_large(limit: int) -> CallerFault:
    return CallerFault(
        f"The body is larger than {limit} bytes (gateway.max_body).", status=413, code="request_too_large"
    )
