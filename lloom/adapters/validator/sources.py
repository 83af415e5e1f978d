"""Where a call comes from, as far as that costs its caller something. It never tells who that is."""

from __future__ import annotations

from lloom.adapters.bridge import Stream
from lloom.adapters.dht.addresses import parse, subnet


def network(stream: Stream) -> str:
    """The network that a call comes from; empty if its connection is gone already."""
    host = stream.connection.wire.address
    return subnet(host, 0) if parse(host) else ""
