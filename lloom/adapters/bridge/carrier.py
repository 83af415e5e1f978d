"""An asyncio transport over a stream of another bridge connection, for relayed ones. It never reads what it carries.

Like a socket, it delivers nothing after `close`, which still sends what was written, and tells once that it is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from loguru import logger

from lloom.adapters.bridge.stream import Stream
from lloom.core.bridge.frames import MAX_DATA
from lloom.core.errors import CallerFault, RetryElsewhere
from lloom.core.messages import Refusal

HIGH: Final = 64 * 1024
"""asyncio's own; the protocol sets another one."""
HUNG_UP: Final = Refusal(503, "hung_up", "the relayed connection was given up")


class Carrier(asyncio.Transport):
    """Carries `protocol` over `stream` while `run` runs. `ours`: we opened the stream."""

    def __init__(self, stream: Stream, protocol: asyncio.Protocol, *, ours: bool) -> None:
        super().__init__({"peername": (stream.connection.wire.address, 0)})
        self._stream = stream
        self._protocol = protocol
        self._ours = ours
        self._buffer = bytearray()
        self._high, self._low = HIGH, HIGH // 4
        self._paused = False
        self._closing = False
        self._something = asyncio.Event()
        self._over = asyncio.Event()
        self._error: Exception | None = None

    async def run(self) -> None:
        """The whole life of the transport; cancelled, it hangs up."""
        self._protocol.connection_made(self)
        pumps = [asyncio.create_task(self._guard(work)) for work in (self._read, self._write)]
        try:
            await self._over.wait()
        finally:
            self._closing = True
            for pump in pumps:
                pump.cancel()
            if self._ours:
                self._stream.cancel()
            else:
                self._stream.reset(HUNG_UP)
            self._protocol.connection_lost(self._error)

    # What the protocol calls

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Sends `data` after what was written before; nothing after `close`."""
        if self._closing or not data:
            return
        self._buffer += data
        self._something.set()
        if len(self._buffer) > self._high and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def close(self) -> None:
        """Ends it once everything is sent."""
        self._closing = True
        self._something.set()

    def abort(self) -> None:
        """Ends it now."""
        self._end(None)

    def is_closing(self) -> bool:
        """Whether it was closed or lost."""
        return self._closing

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Whom it carries."""
        return self._protocol

    def get_write_buffer_size(self) -> int:
        """Bytes written and not yet taken by the stream."""
        return len(self._buffer)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Above `high` bytes the protocol is paused, at `low` (a quarter of it, if not given) it may go on."""
        self._high = HIGH if high is None else high
        self._low = self._high // 4 if low is None else low

    # What happens meanwhile

    async def _read(self) -> None:
        while (data := await self._stream.receive()) is not None:
            if not self._closing:
                self._protocol.data_received(data)
        if self._ours:  # an answer that has ended: nobody takes what we might still send
            self._end(None)
        else:
            self.close()

    async def _write(self) -> None:
        while self._buffer or not self._closing:
            if not self._buffer:
                self._something.clear()
                await self._something.wait()
                continue
            piece = bytes(self._buffer[:MAX_DATA])
            await self._stream.send(piece)
            del self._buffer[: len(piece)]
            self._resume()
        await self._stream.finish()
        # An opener's end is not the end of the stream: the answerer's is, which the protocol waits for as long as it likes.
        if not self._ours:
            self._end(None)

    def _resume(self) -> None:
        if self._paused and len(self._buffer) <= self._low:
            self._paused = False
            self._protocol.resume_writing()

    def _end(self, error: Exception | None) -> None:
        """Nothing more is delivered or sent."""
        if not self._over.is_set():
            self._closing = True
            self._error = error
            self._buffer.clear()
            self._over.set()

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """What stops one direction ends both."""
        try:
            await work()
        except (RetryElsewhere, CallerFault) as error:
            self._end(error)
        except Exception as error:  # noqa: BLE001 - a task's boundary: as asyncio does for a socket
            logger.opt(exception=error).error("a relayed connection failed")
            self._end(error)
