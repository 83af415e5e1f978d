"""What was asked, served and paid, added up by peer, model, day or chain, and two accounts of it compared. It reads nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, Literal

from msgspec import Struct

By = Literal["peer", "model", "day", "chain"]
_LAST: Final = datetime.max.replace(microsecond=0, tzinfo=UTC).timestamp()


class Entry(Struct, frozen=True, kw_only=True):
    """One thing that happened. `peer`: the other side, `0x…`; `day`: `2026-01-31`; `model`: empty where it is not told."""

    peer: str
    model: str
    day: str
    chain: str
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    """What the receipts charge, in smallest units of the chain's token."""
    paid: int = 0
    """What the contract has moved for it: all of the cost once it is redeemed."""


class Row(Struct, frozen=True, kw_only=True):
    """All entries of one peer, model, day or chain, as `key` says. Amounts of two chains are never added."""

    key: str
    chain: str
    requests: int
    input_tokens: int
    output_tokens: int
    cost: int
    paid: int


class Difference(Struct, frozen=True, kw_only=True):
    """Where two accounts disagree: `what` is the name of a number in `Row`."""

    key: str
    chain: str
    what: str
    ledger: int
    on_chain: int


_NUMBERS = ("requests", "input_tokens", "output_tokens", "cost", "paid")
_COMPARED = ("requests", "input_tokens", "output_tokens", "paid")


def rows(entries: Iterable[Entry], by: By) -> list[Row]:
    """The entries added up, a row each, sorted by key and chain."""
    sums: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(lambda: dict.fromkeys(_NUMBERS, 0))
    for entry in entries:
        numbers = sums[getattr(entry, by), entry.chain]
        for name in _NUMBERS:
            numbers[name] += getattr(entry, name)
    return [Row(key=key, chain=chain, **numbers) for (key, chain), numbers in sorted(sums.items())]


def differences(ledger: Iterable[Row], on_chain: Iterable[Row]) -> list[Difference]:
    """Where the journal and the contract's events disagree on what was served, or on what was paid. What receipts charge no
    chain tells: `paid` is as much once all is redeemed, and less before.
    """
    left, right = ({(row.key, row.chain): row for row in account} for account in (ledger, on_chain))
    nothing = dict.fromkeys(_NUMBERS, 0)
    found = []
    for key, chain in sorted(left.keys() | right.keys()):
        none = Row(key=key, chain=chain, **nothing)
        one, other = left.get((key, chain), none), right.get((key, chain), none)
        found += [
            Difference(key=key, chain=chain, what=name, ledger=getattr(one, name), on_chain=getattr(other, name))
            for name in _COMPARED
            if getattr(one, name) != getattr(other, name)
        ]
    return found


def day(seconds: float) -> str:
    """The day (UTC) of a Unix time: `2026-01-31`. Peers say what time it was: one beyond the calendar is its last day."""
    return datetime.fromtimestamp(min(seconds, _LAST), UTC).date().isoformat()
