"""What to pay for gas (EIP-1559), at first and when a transaction waits too long, and for bytes. It asks nobody, knows no clock.

Amounts are smallest units of the chain's coin, those of fees for one unit of gas.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_low
from typing import Final

from msgspec import Struct

MIN_TIP: Final = 1_000_000
"""Blocks of a quiet chain show no tips, and servers refuse to pass on transactions without one."""
_HEADROOM: Final = 2
"""The base fee rises by an eighth a block at most: twice as much lasts for six full blocks."""
_BUMP: Final = (9, 8)
"""Servers take another transaction of the same nonce if both fees are an eighth higher (geth asks for a tenth)."""


class Fees(Struct, frozen=True):
    """The two fees of a transaction."""

    most: int
    """maxFeePerGas"""
    tip: int
    """maxPriorityFeePerGas, part of `most`"""


class Prices(Struct, frozen=True):
    """What a transaction costs now, in smallest units of the coin."""

    gas: int
    """One unit."""
    byte: int
    """One byte of calldata besides its gas; 0 where nothing is paid for that."""


def estimate(base_fee: int, tips: Sequence[int]) -> Fees:
    """Fees that the next blocks take: `base_fee` of the next one, `tips` as the last ones paid them."""
    tip = max(median_low(tips) if tips else 0, MIN_TIP)
    return Fees(_HEADROOM * base_fee + tip, tip)


def price(base_fee: int, fees: Fees) -> int:
    """What a unit of gas really costs in a block of that base fee."""
    return min(fees.most, base_fee + fees.tip)


def within(fees: Fees, base_fee: int, cap: int) -> Fees | None:
    """`fees` cut down to `cap`; None if that would not even pay the next block's base fee and a tip."""
    if fees.most <= cap:
        return fees
    return Fees(cap, min(fees.tip, cap - base_fee)) if cap > base_fee else None


def replacement(before: Fees, fresh: Fees, cap: int) -> Fees | None:
    """Fees with which the same nonce is taken once more: both raised, at least to the fresh ones. None if `cap` forbids it."""
    least = Fees(_raised(before.most), _raised(before.tip))
    if least.most > cap:
        return None
    most = min(max(least.most, fresh.most), cap)
    return Fees(most, min(max(least.tip, fresh.tip), most))


def cap_of(max_fee: int, value: int, gas: int) -> int:
    """The most that a unit of gas may cost: the configured limit, and never more in all than `value`, which it brings."""
    return min(max_fee, value // gas) if gas else max_fee


def data_fee(said: int | None, size: int, max_fee: int) -> int:
    """What so many bytes are taken to cost in all: what was `said` of them, but no more than `max_fee` each; None: just that."""
    most = size * max_fee
    return most if said is None else min(said, most)


def _raised(fee: int) -> int:
    up, down = _BUMP
    return max(-(-fee * up // down), fee + 1)
