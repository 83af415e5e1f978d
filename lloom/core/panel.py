"""One question put to several executors of a model, and who of them answers as no other does. It asks nobody.

Identities are free, so networks are counted, not executors: each has one voice, and an executor is held against other networks
only. Whoever owns most of the networks that serve a model can still outvote the others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from statistics import median
from typing import Final

from lloom.core.identity import NodeId

OTHERS: Final = 3
"""Other networks whose answers it takes to say anything of one."""
ALIKE: Final = 0.3
"""From this similarity on, two answers may come from one model on different machines (figures: docs/threat-model.md)."""
WORDS: Final = 6
"""Of shorter answers nothing is concluded: anybody may say "Yes, of course."."""
FASTEST: Final = 5_000.0
"""Tokens a second, the wait for the first one included, that no model computes for one answer today."""
FAR: Final = 30.0
"""Times the median of the others: a card is so much faster than a processor, hardly more."""
_VOICES: Final = 24
"""Networks that are heard on one question: all pairs of them are compared."""
_ANSWERS: Final = 1024
"""Answers kept to one question; each is a few dozen words."""

_word = re.compile(r"[A-Za-z0-9]+|[^\sA-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class Said:
    """One answer as it came."""

    words: tuple[str, ...]
    tokens: int
    """By the asker's own count."""
    seconds: float
    """From the question to the end of the answer."""
    claimed: int = 0
    """Tokens that the executor says it was."""

    @property
    def rate(self) -> float:
        """Tokens a second; 0 if there are too few words to tell."""
        return self.tokens / max(self.seconds, 1e-6) if len(self.words) >= WORDS else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one answer among those of others."""

    differed: bool
    hurried: bool


class Panel:
    """Collects the answers to one question; `verdicts` when no more are to come."""

    def __init__(self) -> None:
        self._voices: dict[str, Said] = {}
        self._answers: dict[NodeId, tuple[str, Said]] = {}

    def add(self, executor: NodeId, network: str, said: Said) -> None:
        """The answer of `executor`, which answers from `network` (all that is not known counts as one)."""
        if len(self._answers) >= _ANSWERS:
            return
        self._answers[executor] = network, said
        if network not in self._voices and len(self._voices) < _VOICES and len(said.words) >= WORDS:
            self._voices[network] = said

    def verdicts(self) -> dict[NodeId, Verdict]:
        """Of those that can be judged: where at least `OTHERS` other networks answered, and most of them agree."""
        agreeing = self._agreeing()
        found = {
            executor: self._verdict(network, said, agreeing) for executor, (network, said) in self._answers.items()
        }
        return {executor: verdict for executor, verdict in found.items() if verdict is not None}

    def _agreeing(self) -> set[str]:
        """The networks whose answers are like those of most others."""
        names = list(self._voices)
        support: Counter[str] = Counter()
        for number, one in enumerate(names):
            for other in names[number + 1 :]:
                if similarity(self._voices[one].words, self._voices[other].words) >= ALIKE:
                    support.update((one, other))
        return {name for name in names if 2 * support[name] >= len(names) - 1}

    def _verdict(self, network: str, said: Said, agreeing: set[str]) -> Verdict | None:
        others = [name for name in self._voices if name != network]
        majority = [name for name in others if name in agreeing]
        if len(others) < OTHERS or 2 * len(majority) <= len(others):
            return None
        alike = any(similarity(said.words, self._voices[name].words) >= ALIKE for name in majority)
        usual = median(self._voices[name].rate for name in others)
        return Verdict(not alike, said.rate > FAR * usual)


def words(text: str) -> tuple[str, ...]:
    """`text` as it is compared: words of Latin letters and digits, and every other character by itself, whatever the case."""
    return tuple(_word.findall(text.lower()))


def similarity(one: Sequence[str], other: Sequence[str]) -> float:
    """From 0 (nothing in common) to 1 (the same): the share of the beginning that is equal, or of pairs of neighbours, if that is
    more: greedy answers of one model part at some word, and often meet again.
    """
    if not one or not other:
        return float(one == other)
    prefix = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    return max(prefix / max(len(one), len(other)), _dice(one, other))


def _dice(one: Sequence[str], other: Sequence[str]) -> float:
    """The share of neighbours that both have (Dice, Ecology 26, 1945, over multisets of bigrams)."""
    ours, theirs = (Counter(pairwise(each)) for each in (one, other))
    total = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / total if total else 0.0
