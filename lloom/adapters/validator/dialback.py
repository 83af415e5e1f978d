"""Tells an executor whether it can be dialled, by dialling it. It dials nobody but the very address that asks.

So it is no scanner: the address is that of an open connection, which nobody can feign, and what answers there must show the
caller's own certificate.
"""

from __future__ import annotations

import asyncio
from typing import Final

from lloom.adapters.bridge import Link, Stream, dial
from lloom.adapters.validator.sources import network
from lloom.core.buckets import Buckets
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId
from lloom.core.messages import Call, ReachCall, Reached, encode
from lloom.core.offer import Endpoint

AT_ONCE: Final = 32
"""Callers dialled back at the same time, each at all its ports: one after the other, silent ones would take minutes."""
SUBNET_SHARE: Final = 4
"""No one network has more than a quarter of these: there, addresses may be as free as identities."""
CHECKS_PER_SECOND: Final = 4
"""Of one network: each may cost us as many handshakes as it names ports."""
CHECKS: Final = 32
"""The same for everybody."""
PROBLEM_LENGTH: Final = 200


class DialBack:
    """Answers `ReachCall`s over the bridge, as the node of `link`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        # From which network each address is that is being dialled.
        self._busy: dict[str, str] = {}
        self._begun = Buckets(CHECKS_PER_SECOND, CHECKS)

    async def answer(self, stream: Stream) -> None:
        """Dials the caller back at each port. RetryElsewhere if it, or too many others, are being dialled already."""
        call: Call = stream.call
        assert isinstance(call, ReachCall)
        host, peer = stream.connection.wire.address.partition("%")[0], stream.connection.peer
        source = network(stream)
        if not self._has_room(host, source):
            raise RetryElsewhere("One check at a time, please.", status=429, code="busy", retry_after=1)
        self._busy[host] = source
        try:
            problems = await asyncio.gather(*(self._problem(Endpoint(host, port), peer) for port in call.ports))
        finally:
            del self._busy[host]
        await stream.send(encode(Reached(host, tuple(problems))))
        await stream.finish()

    def _has_room(self, host: str, source: str) -> bool:
        others = list(self._busy.values())
        full = len(others) >= AT_ONCE or others.count(source) >= AT_ONCE // SUBNET_SHARE
        return host not in self._busy and not full and self._begun.take(source, asyncio.get_running_loop().time())

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
