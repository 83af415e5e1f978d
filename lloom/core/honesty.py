"""What answers tell of an executor's honesty: evidence in numbers, and when it is enough. It condemns nobody for one answer.

A validator counts, and signs what it counted (`core/vouch`); whoever reads that may draw the same conclusion from it, or another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Annotated, Final

from msgspec import Meta, Struct
from msgspec.structs import replace

from lloom.core.routing.estimates import wilson

MEMORY: Final = 64
"""Answers of one model that are remembered: then all counts are halved, so who mends his ways is believed again."""
HALF: Final = 0.5
"""Nobody is suspected of what happens in fewer than every other answer: other hardware gives other greedy answers."""
_CERTAINTY: Final = 1.96
"""Standard deviations: of four answers all four have to be wrong, of ten nine."""
_LATEST: Final = 4
"""Answers that a new one is held against."""

Answers = Annotated[int, Meta(ge=0, le=MEMORY)]


class Conduct(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """How the latest answers of one model at one executor looked: evidence, no verdict. All are numbers of answers."""

    answers: Answers = 0
    """Looked at."""
    compared: Answers = 0
    """Of these: others were asked the same, and most of them agreed with each other (`core/panel`), in words or in how likely
    they found them, whichever tells more against this one.
    """
    differed: Answers = 0
    """Of those compared: it agreed with none of them, so another model may have answered."""
    repeated: Answers = 0
    """Word for word what it had answered to another question."""
    hurried: Answers = 0
    """Faster than the model can be, or than all others by far: nothing was computed."""
    miscounted: Answers = 0
    """More tokens claimed than the validator counts in them, beyond what tokenizers differ by."""

    @property
    def possible(self) -> bool:
        """Whether these can be counts of the same answers."""
        parts = (self.compared, self.repeated, self.hurried, self.miscounted)
        return max(parts) <= self.answers and self.differed <= self.compared

    def doubts(self) -> tuple[str, ...]:
        """What it is suspected of, in words; nothing as long as it may be chance."""
        found = (
            (self.differed, self.compared, "answers as another model would"),
            (self.repeated, self.answers, "answers different questions with the same words"),
            (self.hurried, self.answers, "answers faster than it can compute"),
            (self.miscounted, self.answers, "claims more tokens than it sends"),
        )
        return tuple(what for hits, of, what in found if _certain(hits, of) > HALF)


class Record:
    """The counts behind a `Conduct`, as answers come in."""

    def __init__(self) -> None:
        self._answers = Conduct()
        """All but what was compared."""
        self._words = _Compared()
        self._odds = _Compared()
        self._latest: deque[tuple[Hashable, Hashable]] = deque(maxlen=_LATEST)

    @property
    def conduct(self) -> Conduct:
        """What the answers add up to."""
        # Logprobs are compared less often than words. In one sum, words that are alike would hide those that are not.
        found = max(self._words, self._odds, key=_Compared.weight)
        return replace(self._answers, compared=found.count, differed=found.differed)

    def answered(self, question: Hashable, answer: Hashable, *, hurried: bool, miscounted: bool) -> None:
        """One more answer. `answer` None: too short to tell anything by being said again."""
        repeated = answer is not None and any(q != question and a == answer for q, a in self._latest)
        if answer is not None:
            self._latest.append((question, answer))
        if self._answers.answers == MEMORY:
            self._halve()
        known = self._answers
        self._answers = Conduct(
            answers=known.answers + 1,
            repeated=known.repeated + repeated,
            hurried=known.hurried + hurried,
            miscounted=known.miscounted + miscounted,
        )

    def judged(self, *, differed: bool | None, hurried: bool, apart: bool | None = None) -> None:
        """An answer that was counted before is compared now, by its words and by its logprobs (`apart`); None: it cannot be.

        `hurried`: only that shows that it came too fast.
        """
        known = self._answers
        if self._words.add(differed, known.answers) and hurried and known.hurried < known.answers:
            self._answers = replace(known, hurried=known.hurried + 1)
        self._odds.add(apart, known.answers)

    def _halve(self) -> None:
        known = self._answers
        self._answers = Conduct(
            answers=known.answers // 2,
            repeated=known.repeated // 2,
            hurried=known.hurried // 2,
            miscounted=known.miscounted // 2,
        )
        for compared in (self._words, self._odds):
            compared.halve()


@dataclass(slots=True)
class _Compared:
    """Answers that were held against others in one way."""

    count: int = 0
    differed: int = 0

    def add(self, differed: bool | None, answers: int) -> bool:
        """One more of so many answers; whether it counts."""
        if differed is None or self.count >= answers:  # then it was counted before the counts were halved
            return False
        self.count += 1
        self.differed += differed
        return True

    def halve(self) -> None:
        self.count //= 2
        self.differed //= 2

    def weight(self) -> tuple[float, int]:
        """What tells more against an executor is greater, then what was seen more often."""
        return _certain(self.differed, self.count), self.count


def _certain(hits: int, of: int) -> float:
    """The share that it will be at least: Wilson's bound."""
    return wilson(hits, of - hits, _CERTAINTY)
