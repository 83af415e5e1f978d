"""Amounts as people write them, `0.05`, and as they are counted, in smallest units. No float ever holds money."""

from __future__ import annotations

import re
from typing import Final

from lloom.core.payment.voucher import MAX_AMOUNT

_DECIMAL: Final = re.compile(r"(\d{1,39})(?:\.(\d{1,36}))?|\.(\d{1,36})", re.ASCII)
GWEI: Final = 9
"""Decimals in which prices of gas are told."""


def parse(text: str, decimals: int) -> int:
    """Smallest units of `text` (`0.05`, `3`, `.5`); ValueError says why it is no amount that can be paid."""
    found = _DECIMAL.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text[:40]!r} is no amount; write it like 0.05")
    whole, part = found[1] or "0", found[2] or found[3] or ""
    if len(part.rstrip("0")) > decimals:
        raise ValueError(f"{text[:40]} has more than {decimals} decimals")
    amount: int = int(whole) * 10**decimals + int(part[:decimals].ljust(decimals, "0") or "0")
    if not 0 < amount <= MAX_AMOUNT:
        raise ValueError(f"{text[:40]} is {'nothing' if amount == 0 else 'more than there can be'}")
    return amount


def show(amount: int, decimals: int) -> str:
    """`amount` smallest units as a decimal number, exactly: what `parse` takes back."""
    whole, part = divmod(abs(amount), 10**decimals)
    digits = f"{part:0{decimals}d}".rstrip("0") if part else ""
    return f"{'-' if amount < 0 else ''}{whole}{'.' if digits else ''}{digits}"
