"""One question put to several executors of a model, and who of them answers as no other does. It asks nobody.

Identities are free, so networks are counted, not executors: each has one voice, and an executor is held against other networks
only. Whoever owns most of the networks that serve a model can still outvote the others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, takewhile
from statistics import median
from typing import Final

from lloom.core import odds
from lloom.core.identity import NodeId
from lloom.core.odds import Place

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
    odds: tuple[Place, ...] = ()
    """How likely they were, by its own account; empty if there is none."""

    @property
    def rate(self) -> float:
        """Tokens a second; 0 if there are too few words to tell."""
        return self.tokens / max(self.seconds, 1e-6) if len(self.words) >= WORDS else 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one answer among those of others; None where too few of these can be compared, or do not agree with each other."""

    differed: bool | None
    """Its words are like those of none of the others that agree."""
    apart: bool | None
    """So is how likely its tokens were: another model may have said the same words."""
    hurried: bool


Relation = Callable[[Said, Said], bool]


class Panel:
    """Collects the answers to one question; `verdicts` when no more are to come."""

    def __init__(self) -> None:
        self._words = _Voices(_worded, lambda _one, _other: True)
        self._odds = _Voices(_expected, lambda one, other: odds.comparable(one.odds, other.odds))
        self._answers: dict[NodeId, tuple[str, Said]] = {}

    def add(self, executor: NodeId, network: str, said: Said) -> None:
        """The answer of `executor`, which answers from `network` (all that is not known counts as one)."""
        if len(self._answers) >= _ANSWERS:
            return
        self._answers[executor] = network, said
        if len(said.words) >= WORDS:
            self._words.hear(network, said)
        if said.odds:
            self._odds.hear(network, said)

    def verdicts(self) -> dict[NodeId, Verdict]:
        """Of those that can be judged: where at least `OTHERS` other networks answered, and most of them agree."""
        worded, expected = self._words.agreeing(), self._odds.agreeing()
        found = {}
        for executor, (network, said) in self._answers.items():
            like, near = self._words.like(network, said, worded), self._odds.like(network, said, expected)
            if like is not None or near is not None:
                hurried = like is not None and said.rate > FAR * self._words.rate(network)
                found[executor] = Verdict(_not(like), _not(near), hurried)
        return found


class _Voices:
    """One answer of each network. `alike` says whether two agree, `comparable` whether that can be told."""

    def __init__(self, alike: Relation, comparable: Relation) -> None:
        self._alike = alike
        self._comparable = comparable
        self._heard: dict[str, Said] = {}

    def hear(self, network: str, said: Said) -> None:
        """The first one of a network speaks for it."""
        if network not in self._heard and len(self._heard) < _VOICES:
            self._heard[network] = said

    def agreeing(self) -> set[str]:
        """The networks whose answers are like those of most others."""
        support: Counter[str] = Counter()
        for (one, ours), (other, theirs) in combinations(self._heard.items(), 2):
            if self._alike(ours, theirs):
                support.update((one, other))
        return {name for name in self._heard if 2 * support[name] >= len(self._heard) - 1}

    def like(self, network: str, said: Said, agreeing: set[str]) -> bool | None:
        """Whether an answer from `network` is like any of the majority of the others that it can be compared with.

        None if these are fewer than `OTHERS`, or most of them do not agree.
        """
        others = [name for name, voice in self._heard.items() if name != network and self._comparable(said, voice)]
        majority = [name for name in others if name in agreeing]
        if len(others) < OTHERS or 2 * len(majority) <= len(others):
            return None
        return any(self._alike(said, self._heard[name]) for name in majority)

    def rate(self, network: str) -> float:
        """The median of the others."""
        return median(voice.rate for name, voice in self._heard.items() if name != network)


def _worded(one: Said, other: Said) -> bool:
    return similarity(one.words, other.words) >= ALIKE


def _expected(one: Said, other: Said) -> bool:
    return odds.alike(one.odds, other.odds)


def _not(found: bool | None) -> bool | None:
    return None if found is None else not found


def words(text: str) -> tuple[str, ...]:
    """`text` as it is compared: words of Latin letters and digits, and every other character by itself, whatever the case."""
    return tuple(_word.findall(text.lower()))


def similarity(one: Sequence[str], other: Sequence[str]) -> float:
    """From 0 (nothing in common) to 1 (the same): the share of the beginning that is equal, or of pairs of neighbours, if that is
    more: greedy answers of one model part at some word, and often meet again.
    """
    if one == other or not one or not other:
        return float(one == other)
    prefix = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    return max(prefix / max(len(one), len(other)), _dice(one, other))


def _dice(one: Sequence[str], other: Sequence[str]) -> float:
    """The share of neighbours that both have (Dice, Ecology 26, 1945, over multisets of bigrams)."""
    ours, theirs = (Counter(pairwise(each)) for each in (one, other))
    total = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / total if total else 0.0
