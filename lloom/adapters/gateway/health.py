"""What /health tells. It never fails: a node that is not ready says so."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Health(Struct, frozen=True, kw_only=True):
    """The state of a node. `starting` is a 503: wait, or read `problem`."""

    status: Literal["ok", "starting"]
    node: str
    """Its address."""
    role: str
    version: str
    network: str
    peers: int
    """Nodes of the network that it knows."""
    problem: str | None = None
    """Why it is not ready, or not well."""
