"""What the words of several validators come to, each as far as it is believed. It knows no validator.

Nobody's own word about itself gets here: a vouch for oneself is no vouch (`core/vouch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from lloom.core.reputation.score import UNKNOWN

AGREE: Final = 2
"""So many validators have to say the same before it counts, where there are so many: nobody rises or falls by one's word."""
REACH: Final = 0.25
"""How far the words of all of them move an executor, either way: what is said is weak beside what is seen."""


class Word(NamedTuple):
    """One validator's statement: how far that validator is believed (from 0 to 1), and what it says."""

    weight: float
    good: bool


def heard(words: Sequence[Word], validators: int) -> float:
    """What is expected of an executor of which that is said, from `UNKNOWN - REACH` to `UNKNOWN + REACH`; `validators`: how many
    are configured.
    """
    needed = min(AGREE, max(1, validators))
    good, bad = ([word.weight for word in words if word.good is way] for way in (True, False))
    total = sum(good) + sum(bad)
    if total <= 0:
        return UNKNOWN
    lean = (sum(good) - sum(bad)) / total
    if len(good if lean > 0 else bad) < needed:
        return UNKNOWN
    return UNKNOWN + REACH * lean
