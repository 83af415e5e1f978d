"""Identities that a validator asks executors with, made from its own key: nobody else can tell whose they are. It keeps none.

They need no journal: the same key and number make the same identity again, so nothing that one of them owns is ever lost.
"""

from __future__ import annotations

from lloom.core.identity import Identity, NodeId
from lloom.core.settings import Settings


def visitor(owner: Identity, epoch: int, number: int) -> Identity:
    """The identity with that number in that epoch; for what nobody pays."""
    return owner.derived(f"visitor {epoch} {number}")


def number(owner: Identity, executor: NodeId, identities: int) -> int:
    """Which of so many identities visits `executor`: by a lot that is always the same, and that nobody else knows."""
    return int.from_bytes(owner.derived(f"visited {executor.hex()}").address) % identities


def payer(owner: Identity, settings: Settings) -> Identity:
    """Who pays for what the node of `owner` asks: a client itself; a validator has a purse under a name of its own."""
    return owner.derived(f"purse {settings.validator.purse}") if settings.role == "validator" else owner
