"""The HTTP/1.1 of the mock, on httptools: requests in, one after the other, bytes out. It never knows what is asked."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import unquote

import httptools
from loguru import logger

MAX_BODY: Final = 64 * 1024 * 1024
MAX_HEAD: Final = 64 * 1024
PIPELINED: Final = 16
"""Requests that may wait on one connection."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `headers` are in lower case; `keep`: whether the connection lives on after the answer."""

    method: str
    path: str
    headers: dict[bytes, bytes]
    body: bytes
    keep: bool

    def header(self, name: bytes) -> str:
        """A header's value, empty if it is not there."""
        return self.headers.get(name, b"").decode("latin-1")


class HttpConnection(asyncio.Protocol):
    """One connection. A subclass answers in `respond`, at once by `send` or later in the task it hands to `answer_by`."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()
        self.on_message_begin()

    @abstractmethod
    def respond(self, request: Request) -> None:
        """Answers `request`."""

    @abstractmethod
    def abandoned(self) -> None:
        """The reader went away during an answer, which is being cancelled."""

    def send(self, status: int, body: bytes, headers: bytes = b"") -> None:
        """A whole JSON answer; `headers` are further lines, each with its line break."""
        self.transport.write(head(status, len(body), headers) + body)

    def answer_by(self, answer: asyncio.Task[None], keep: bool) -> None:
        """Owns the task that answers; the connection closes after it unless `keep`, and whenever it fails."""
        self._task = answer
        answer.add_done_callback(lambda done: self._answered(done, keep))

    def drop(self) -> asyncio.Task[None] | None:
        """Closes at once; the task that was answering, if any, is being cancelled."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        self.transport.abort()
        return task

    def _answered(self, done: asyncio.Task[None], keep: bool) -> None:
        self._task = None
        if not done.cancelled() and (error := done.exception()) is not None:
            logger.opt(exception=error).error("the mock broke")
            keep = False
        if done.cancelled() or not keep:
            self.transport.close()
        self._next()

    def _next(self) -> None:
        while self._waiting and self._task is None and not self.transport.is_closing():
            request = self._waiting.popleft()
            self.respond(request)
            if not request.keep and self._task is None:
                self.transport.close()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError):
            self.transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            self.abandoned()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    # httptools' side

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._head = self._size = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head += len(name) + len(value)
        if self._head > MAX_HEAD:
            self.transport.abort()
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        if self._headers.get(b"expect", b"").lower() == b"100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MAX_BODY:
            self.transport.abort()
        self._body.append(body)

    def on_message_complete(self) -> None:
        path = unquote(self._url.partition(b"?")[0].decode("latin-1"))
        method = self._parser.get_method().decode("latin-1")
        body, keep = b"".join(self._body), self._parser.should_keep_alive()
        self._waiting.append(Request(method, path, self._headers, body, keep))
        if len(self._waiting) > PIPELINED:
            self.transport.abort()
        else:
            self._next()


def head(status: int, length: int, headers: bytes = b"") -> bytes:
    """The head of a JSON answer."""
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Fault"
    lines = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n"
    return lines.encode() + headers + b"\r\n"
