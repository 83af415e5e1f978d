"""What a chain says of a client's money. It says nothing of what is owed."""

from __future__ import annotations

from msgspec import Struct


class Funds(Struct, frozen=True):
    """A client's account, in smallest units of its token. `thawed_at`: Unix seconds from which it may be taken out; 0: never."""

    balance: int
    thawing: int
    """Part of the balance that its owner wants back: it still pays vouchers, but nobody should count on it."""
    thawed_at: int

    @property
    def available(self) -> int:
        """What an executor may count on."""
        return self.balance - self.thawing


class LaneFunds(Struct, frozen=True):
    """A lane on chain. `released_at`: Unix seconds from which `reserved` may be taken back; 0: nobody asked for that."""

    claimed: int
    """Ever paid on the lane."""
    reserved: int
    """Set aside for it, beside what was claimed."""
    released_at: int
