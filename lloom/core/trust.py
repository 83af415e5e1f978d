"""How far each validator can be believed, by what became of what it said. It asks nobody and reads no clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Final

from lloom.core.identity import NodeId

THRESHOLD: Final = 0.2
"""Below this a validator is not asked: of five things it said four were wrong."""
LIE_SECONDS: Final = 3600.0
"""Whoever hands out what is forged is not asked for so long: that is no mistake."""
_MAX_VALIDATORS: Final = 64


@dataclass(slots=True)
class _Evidence:
    at: float
    held: float = 0.0
    misled: float = 0.0
    liar_until: float = 0.0


class Trust:
    """Evidence that fades: what is `memory` seconds old weighs half. Times are seconds on any steady clock."""

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self._evidence: dict[NodeId, _Evidence] = {}

    def held(self, validator: NodeId, now: float) -> None:
        """Something that `validator` said proved right."""
        self._faded(validator, now).held += 1

    def misled(self, validator: NodeId, now: float) -> None:
        """Something that `validator` said proved wrong; it may have been right when it was said."""
        self._faded(validator, now).misled += 1

    def lied(self, validator: NodeId, now: float) -> None:
        """`validator` handed out what nobody signed."""
        self._faded(validator, now).liar_until = now + LIE_SECONDS

    def score(self, validator: NodeId, now: float) -> float:
        """From 0 to 1; a half where nothing is known (Laplace's rule of succession)."""
        known = self._evidence.get(validator)
        if known is None:
            return 0.5
        fade = self._fade(known, now)
        return (known.held * fade + 1) / ((known.held + known.misled) * fade + 2)

    def trusted(self, validator: NodeId, now: float) -> bool:
        """Whether `validator` is worth asking."""
        known = self._evidence.get(validator)
        return known is None or (known.liar_until <= now and self.score(validator, now) >= THRESHOLD)

    def order(self, validators: Iterable[NodeId], now: float, rng: Random) -> list[NodeId]:
        """Those worth asking, mostly the best first: each in turn, so that none alone decides what is seen."""
        worth = [validator for validator in validators if self.trusted(validator, now)]
        return sorted(worth, key=lambda each: rng.random() * self.score(each, now), reverse=True)

    def _faded(self, validator: NodeId, now: float) -> _Evidence:
        """The evidence about `validator`, brought to `now`, for a change."""
        if validator not in self._evidence and len(self._evidence) >= _MAX_VALIDATORS:
            del self._evidence[next(iter(self._evidence))]
        known = self._evidence.setdefault(validator, _Evidence(now))
        fade = self._fade(known, now)
        known.at, known.held, known.misled = now, known.held * fade, known.misled * fade
        return known

    def _fade(self, known: _Evidence, now: float) -> float:
        return float(0.5 ** (max(0.0, now - known.at) / self._memory))
