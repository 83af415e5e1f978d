"""One line of payments, as everybody names it who keeps something of it. It holds no sums."""

from __future__ import annotations

from msgspec import Struct


class Lane(Struct, frozen=True):
    """One line of payments from a client to an executor; chain and contract are the journal's own."""

    client: bytes
    token: bytes
    number: int
