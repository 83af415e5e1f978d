"""What evidence makes of an executor: a number with its reasons, every part of it bounded. It keeps nothing.

What others say is believed within what our own answers leave possible (Wilson's interval); that is lowered by what the executor
did wrong for certain, each kind by a share of its own. No observation is forever and none is everything: evidence fades, and
nobody falls below `FLOOR`.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from types import MappingProxyType
from typing import Final, NamedTuple

from msgspec import Struct

from lloom.core.reputation.evidence import Evidence, Kind
from lloom.core.routing.estimates import wilson

UNKNOWN: Final = 0.5
"""The reputation of those of whom nobody knows anything."""
DOUBTED: Final = 0.5
"""Whose honesty is below this is asked after others."""
FLOOR: Final = 0.05
"""Of honesty: whoever is here is still asked where there is nobody else, and believed again once evidence has faded."""
_SMALL: Final = 0.005
"""A loss below this is none."""
_CERTAINTY: Final = 1.96
"""Standard deviations: of one wrong in one, a fifth is certain; of four in four, a half."""


class Rule(NamedTuple):
    """What being wrong costs."""

    cost: float
    """Share of the reputation that is lost if it is always so."""
    chance: float
    """Share of the answers in which it may happen to the honest as well."""
    weight: float
    """Right ones that make up for one wrong: a long good record must not pay for a long time of lies."""
    words: str


RULES: Final[Mapping[Kind, Rule]] = MappingProxyType(
    {
        Kind.COUNT: Rule(0.8, 0.0, 8.0, "claims more tokens than arrive"),
        Kind.RECEIPT: Rule(0.8, 0.0, 8.0, "signs receipts that are not true"),
        Kind.PRICE: Rule(0.5, 0.0, 4.0, "does not keep to its quotes"),
        Kind.SPEED: Rule(0.5, 0.5, 1.0, "answers faster than it can compute"),
        Kind.WORDS: Rule(0.6, 0.5, 1.0, "answers different questions with the same words"),
    }
)


class Score(Struct, frozen=True):
    """`value` from 0 to 1; `honesty` is a factor in it, from `FLOOR` to 1, and `reasons` is what lowers that."""

    value: float = UNKNOWN
    regard: float = UNKNOWN
    """The value for those who count our own answers elsewhere: here they only refute what others say."""
    honesty: float = 1.0
    reasons: tuple[str, ...] = ()

    @property
    def doubted(self) -> bool:
        """Whether it is asked after others."""
        return self.honesty < DOUBTED


def judge(known: Evidence, said: float) -> Score:
    """The score by what is `known` now, where others say `said` (from 0 to 1)."""
    good, bad = known.right[Kind.ANSWER], known.wrong[Kind.ANSWER]
    least, most = wilson(good, bad, _CERTAINTY), 1.0 - wilson(bad, good, _CERTAINTY)
    lost = {kind: loss for kind in RULES if (loss := _loss(known, kind)) > _SMALL}
    honesty = max(FLOOR, prod(1 - loss for loss in lost.values()))
    reasons = tuple(_reason(known, kind, lost[kind]) for kind in sorted(lost, key=lost.__getitem__, reverse=True))
    return Score(
        value=max(least, min(most, said)) * honesty,
        regard=max(min(least, UNKNOWN), min(max(most, UNKNOWN), said)) * honesty,
        honesty=honesty,
        reasons=reasons,
    )


def _loss(known: Evidence, kind: Kind) -> float:
    """What one kind of wrong costs: its share among the answers, as far as that is certain and more than chance."""
    rule, right, wrong = RULES[kind], known.right[kind], known.wrong[kind]
    certain = wilson(wrong, right / rule.weight, _CERTAINTY)
    return rule.cost * max(0.0, certain - rule.chance) / (1 - rule.chance)


def _reason(known: Evidence, kind: Kind, loss: float) -> str:
    right, wrong = known.right[kind], known.wrong[kind]
    return f"{RULES[kind].words} ({wrong:.1f} of {right + wrong:.1f}): -{loss:.0%}"
