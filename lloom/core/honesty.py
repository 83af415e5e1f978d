"""What answers tell of an executor's honesty: evidence in numbers, and when it is enough. It condemns nobody for one answer.

A validator counts, and signs what it counted (`core/vouch`); whoever reads that may draw the same conclusion from it, or another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Annotated, Final

from msgspec import Meta, Struct

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
    """Of these: others were asked the same, and most of them agreed with each other (`core/panel`)."""
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
        return tuple(what for hits, of, what in found if wilson(hits, of - hits, _CERTAINTY) > HALF)


class Record:
    """The counts behind a `Conduct`, as answers come in."""

    def __init__(self) -> None:
        self.conduct = Conduct()
        self._latest: deque[tuple[Hashable, Hashable]] = deque(maxlen=_LATEST)

    def answered(self, question: Hashable, answer: Hashable, *, hurried: bool, miscounted: bool) -> None:
        """One more answer. `answer` None: too short to tell anything by being said again."""
        repeated = answer is not None and any(q != question and a == answer for q, a in self._latest)
        if answer is not None:
            self._latest.append((question, answer))
        if self.conduct.answers == MEMORY:
            self._halve()
        self._add(1, 0, 0, int(repeated), int(hurried), int(miscounted))

    def judged(self, *, differed: bool, hurried: bool) -> None:
        """An answer that was counted before is compared now. `hurried`: only that shows that it came too fast."""
        known = self.conduct
        if known.compared < known.answers:  # else it was counted before the counts were halved
            room = known.hurried < known.answers
            self._add(0, 1, int(differed), 0, int(hurried and room), 0)

    def _halve(self) -> None:
        known = self.conduct
        halves = (known.answers, known.compared, known.differed, known.repeated, known.hurried, known.miscounted)
        self.conduct = Conduct(*(number // 2 for number in halves))

    def _add(self, *numbers: int) -> None:
        known = self.conduct
        before = (known.answers, known.compared, known.differed, known.repeated, known.hurried, known.miscounted)
        self.conduct = Conduct(*(old + new for old, new in zip(before, numbers, strict=True)))
