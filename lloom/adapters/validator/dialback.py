"""Tells an executor whether it can be dialled, by dialling it. It dials nobody but the very address that asks.

So it is no scanner: the address is that of an open connection, which nobody can feign, and what answers there must show the
caller's own certificate.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

from lloom.adapters.bridge import Link, Stream, dial
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId
from lloom.core.messages import Call, ReachCall, Reached, encode
from lloom.core.offer import Endpoint

AT_ONCE: Final = 64
"""Callers dialled back at the same time, each at one port after another."""
PROBLEM_LENGTH: Final = 200


class DialBack:
    """Answers `ReachCall`s over the bridge, as the node of `link`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._busy: Counter[str] = Counter()

    async def answer(self, stream: Stream) -> None:
        """Dials the caller back at each port. RetryElsewhere if it, or too many others, are being dialled already."""
        call: Call = stream.call
        assert isinstance(call, ReachCall)
        host, peer = stream.connection.wire.address.partition("%")[0], stream.connection.peer
        if self._busy[host] or self._busy.total() >= AT_ONCE:
            raise RetryElsewhere("One check at a time, please.", status=429, code="busy", retry_after=1)
        self._busy[host] += 1
        try:
            problems = tuple([await self._problem(Endpoint(host, port), peer) for port in call.ports])
        finally:
            del self._busy[host]
        await stream.send(encode(Reached(host, problems)))
        await stream.finish()

    async def _problem(self, endpoint: Endpoint, peer: NodeId) -> str:
        """Why `peer` is not reached at `endpoint`; empty if it is."""
        try:
            connection = await dial(endpoint, peer, self._link, lambda _connection, _message: None)
        except RetryElsewhere as error:
            return str(error)[:PROBLEM_LENGTH]
        closing = asyncio.create_task(connection.close())
        await asyncio.wait([closing], timeout=self._link.settings.connect_seconds)
        connection.wire.abort()
        return ""
