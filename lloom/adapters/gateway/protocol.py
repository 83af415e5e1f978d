"""HTTP/1.1 on one connection: uvicorn's, which bounds neither the size of headers nor the time they take. It sees no request."""

from __future__ import annotations

import asyncio
import http
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lloom.core.api.dialect import Failure
from lloom.core.api.openai import envelope

LOST: Final = "lloom.lost"
"""In a request's scope: a future that is done when its connection is lost."""
ARRIVED: Final = "lloom.arrived"
"""There, and true, as soon as all of the request's body has come."""

_HEADS: Final = {
    status: f"HTTP/1.1 {status} {status.phrase}\r\nconnection: close\r\ncontent-type: application/json\r\n".encode()
    for status in (
        http.HTTPStatus.BAD_REQUEST,
        http.HTTPStatus.REQUEST_TIMEOUT,
        http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    )
}


class Joining:
    """A transport that holds back the head of an answer, so that it leaves with the first part of its body.

    uvicorn writes them one after the other: two system calls, and a caller that wakes up twice.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Writes `data`, a head not later than when the loop turns."""
        head, self._head = self._head, b""
        if head:
            self._transport.write(head + data)
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def is_closing(self) -> bool:
        """Whether it is, or has, closed."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Closes once all is written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head:
            self._transport.write(head)


class Protocol(HttpToolsProtocol):
    """One connection. Errors before there is a request are said in OpenAI's words, and end it."""

    max_head: int
    """Bytes of first line and headers (RFC 6585, 5)."""
    head_seconds: float
    """How long they may take, from the connection's first byte or the last request's end."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._left = self.max_head
        self._reading = False
        """Whether a head is coming, and no body."""
        self._timer: asyncio.TimerHandle | None = None
        self._lost: asyncio.Future[None] = self.loop.create_future()
        """Done when the connection is; each request finds it in its scope."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(Joining(transport, self.loop))  # type: ignore[arg-type]
        self._begin()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        if not self._lost.done():
            self._lost.set_result(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Counts what comes while a head is read. The read that a head begins with is not counted: it may hold others' bytes."""
        if self._reading:
            self._left -= len(data)
        super().data_received(data)
        if not self._reading or self.transport.is_closing():
            return
        if self._left < 0:
            self._refuse(
                http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"The headers are larger than {self.max_head} bytes."
            )
        else:
            self._watch()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[LOST] = self._lost  # type: ignore[typeddict-unknown-key]
        self._begin()

    def on_headers_complete(self) -> None:
        self._stop()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.scope[ARRIVED] = True  # type: ignore[typeddict-unknown-key]
        if not self.pipeline:  # else the end of the connection would not be seen
            self.flow.resume_reading()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls for what is no HTTP."""
        self._refuse(http.HTTPStatus.BAD_REQUEST, msg)

    def _begin(self) -> None:
        self._stop()
        self._reading, self._left = True, self.max_head

    def _watch(self) -> None:
        """What comes in one piece needs no timer."""
        if self._timer is None:
            self._timer = self.loop.call_later(self.head_seconds, self._late)

    def _stop(self) -> None:
        self._reading = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._refuse(http.HTTPStatus.REQUEST_TIMEOUT, f"No whole headers came within {self.head_seconds:g} s.")

    def _refuse(self, status: http.HTTPStatus, message: str) -> None:
        """Says what is wrong, unless an answer is being written, and closes."""
        self._stop()
        if self.cycle is None or self.cycle.response_complete:
            body = envelope(Failure(status, message))
            self.transport.write(_HEADS[status] + b"content-length: %d\r\n\r\n" % len(body) + body)
        self.transport.close()


def bounded(max_head: int, head_seconds: float) -> type[Protocol]:
    """A protocol with these limits; uvicorn takes a class."""
    return type("BoundedProtocol", (Protocol,), {"max_head": max_head, "head_seconds": head_seconds})
