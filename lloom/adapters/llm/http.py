"""Requests to one HTTP/1.1 server, on httptools, over connections that are kept. It follows no redirect and decodes no body.

Nothing more general, because of what that costs: with aiohttp's client a request took a fifth more of a Worker's CPU.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import quote, urlsplit

import aiohappyeyeballs
import httptools

MAX_HEAD: Final = 64 * 1024
"""Bytes before a body."""
MAX_UNREAD: Final = 256 * 1024
"""Bytes of a body that wait to be read; then the server has to wait."""
EYEBALLS_SECONDS: Final = 0.25
"""How long one address of a host is tried alone (RFC 8305, section 5)."""


class Broken(Exception):
    """Raised when the server hangs up within its answer, or says what is no HTTP."""


@dataclass(frozen=True, slots=True)
class Address:
    """A server, and the path of its API without a slash at the end."""

    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Of `http://…` or `https://…`; ValueError if that is no such address, or has a name and a password in it."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError(f"{url!r} is no address of a server")
        host = parts.hostname.encode("idna").decode()
        secure = parts.scheme == "https"
        return cls(
            secure, host, parts.port or (443 if secure else 80), quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~")
        )

    @property
    def name(self) -> str:
        """For the header `host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


class Connection(asyncio.Protocol):
    """One connection: `ask`, then `head`, then `read` until nothing comes. `lost` is called when it is closed."""

    def __init__(self, lost: Callable[[Connection], None]) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        """Names in lower case."""
        self.rest: asyncio.TimerHandle | None = None
        """Ends it when nobody has asked for a while; its owner sets that."""
        self._lost = lost
        self._parser = httptools.HttpResponseParser(self)
        self._news = asyncio.Event()
        self._parts: list[bytes] = []
        self._unread = self._head = 0
        self._headed = self._ended = self._kept = False
        self._broken: str | None = None

    @property
    def free(self) -> bool:
        """Whether the answer is read to its end, and the server takes another request."""
        return self._kept and not self._parts and self._broken is None

    def ask(self, request: bytes) -> None:
        """Sends a request, head and body."""
        self._headed = self._ended = self._kept = False
        self._head = 0
        self._transport.write(request)

    async def head(self, seconds: float) -> None:
        """Returns once `status` and `headers` are here. TimeoutError if nothing comes for so long; Broken."""
        while not self._headed:
            await self._wait(seconds)

    async def read(self, seconds: float) -> bytes:
        """The next bytes of the body, empty at its end. Raises as `head`, once all that came before was read."""
        while not self._parts:
            if self._ended:
                return b""
            await self._wait(seconds)
        data = b"".join(self._parts)
        self._parts.clear()
        if self._unread > MAX_UNREAD:
            self._transport.resume_reading()
        self._unread = 0
        return data

    def abort(self) -> None:
        """Hangs up."""
        self._transport.abort()

    async def _wait(self, seconds: float) -> None:
        if self._broken is not None:
            raise Broken(self._broken)
        self._news.clear()
        async with asyncio.timeout(seconds):
            await self._news.wait()

    def _fail(self, what: str) -> None:
        self._broken = self._broken or what
        self._transport.abort()

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError) as error:
            self._fail(type(error).__name__)
        if not self._headed:
            self._head += len(data)
            if self._head > MAX_HEAD:
                self._fail("a head without end")
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._headed and not self._measured and exc is None and self._broken is None:
            self._ended = True
        self._broken = self._broken or ("hung up" if exc is None else type(exc).__name__)
        self._news.set()
        self._lost(self)

    # httptools' side

    def on_message_begin(self) -> None:
        if self._headed:
            self._fail("an answer that nobody asked for")  # what was asked for is whole
        else:
            self.headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._headed:  # else it stands behind the body
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if not self._headed:
            self.status = self._parser.get_status_code()
            self._headed = self.status >= 200  # those below announce another one (RFC 9110, 15.2)

    def on_body(self, body: bytes) -> None:
        if self._ended:
            return
        self._parts.append(body)
        if self._unread <= MAX_UNREAD < self._unread + len(body):
            self._transport.pause_reading()
        self._unread += len(body)

    def on_message_complete(self) -> None:
        if self._headed and not self._ended:
            self._ended = True
            self._kept = self._parser.should_keep_alive()

    @property
    def _measured(self) -> bool:
        """Whether the answer says where it ends; else that is where the connection ends (RFC 9112, 6.3)."""
        return "content-length" in self.headers or "transfer-encoding" in self.headers


class Connections:
    """At most `limit` to one server; those that are free are kept for `keep_seconds`."""

    def __init__(self, address: Address, limit: int, keep_seconds: float) -> None:
        self._address = address
        self._keep_seconds = keep_seconds
        self._places = asyncio.Semaphore(limit)
        self._open: set[Connection] = set()
        self._free: list[Connection] = []
        self._ssl = ssl.create_default_context() if address.secure else None

    async def take(self) -> Connection:
        """One to ask over; `give_back` has to follow. OSError if there is none to be had."""
        await self._places.acquire()
        try:
            found = self._free.pop() if self._free else await self._connect()
        except BaseException:
            self._places.release()
            raise
        if found.rest is not None:
            found.rest.cancel()
        return found

    def give_back(self, connection: Connection) -> None:
        """It is used no more. Within an answer that hangs up, which stops the server's work."""
        self._places.release()
        if not connection.free or not self._keep_seconds:
            connection.abort()
        else:
            self._free.append(connection)
            connection.rest = asyncio.get_running_loop().call_later(self._keep_seconds, self._drop, connection)

    def close(self) -> None:
        """Hangs up everywhere."""
        for connection in tuple(self._open):
            connection.abort()

    async def _connect(self) -> Connection:
        loop, to = asyncio.get_running_loop(), self._address
        addresses = await loop.getaddrinfo(to.host, to.port, type=socket.SOCK_STREAM)
        connected = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=EYEBALLS_SECONDS)
        try:
            name = to.host if to.secure else None
            _, connection = await loop.create_connection(
                lambda: Connection(self._lost), sock=connected, ssl=self._ssl, server_hostname=name
            )
        except BaseException:
            connected.close()
            raise
        self._open.add(connection)
        return connection

    def _drop(self, connection: Connection) -> None:
        self._lost(connection)
        connection.abort()

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
