"""How likely a model found each token that it said and others at its place, and how far two such accounts are apart.

As long as two answers to one question are the same, their models had the same before them, so what they expected next can be
held against each other; the place at which they part is the last. Texts hide what expectations show (Cai et al., Are You
Getting What You Pay For?, arXiv:2504.04715). Machines and quantisations move these, too: hence a tolerance (figures:
docs/reputation.md).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

LIKELIEST: Final = 5
"""Tokens that are asked for, and looked at, at each place: most of what is likely, and no unusual number."""
PLACES: Final = 16
"""From the first token on; what comes later is not looked at."""
NAME: Final = 64
"""Bytes of a token that are looked at."""
APART: Final = 0.3
"""Beyond this distance, two accounts are hardly of one model on different machines."""
_CERTAIN: Final = 0.999
"""Who is that sure of every word tells what was drawn, not what was likely: at temperature 0 some servers do."""
_ROUNDING: Final = 0.01
"""By which probabilities may exceed what is possible."""

_Part = Annotated[int, Meta(ge=0, le=255)]


class _Token(Struct, frozen=True):
    """As OpenAI has it."""

    token: Annotated[str, Meta(max_length=128)]
    logprob: float
    parts: Annotated[list[_Part], Meta(max_length=512)] | None = msgspec.field(default=None, name="bytes")

    @property
    def name(self) -> bytes:
        return (bytes(self.parts) if self.parts else self.token.encode(errors="replace"))[:NAME]

    @property
    def probability(self) -> float:
        """ValueError if it is none."""
        found = math.exp(min(self.logprob, 1.0))
        if not 0 <= found <= 1 + _ROUNDING:  # nor is NaN
            raise ValueError(f"a token of log probability {self.logprob}")
        return min(found, 1.0)


class _Said(_Token, frozen=True):
    top_logprobs: Annotated[list[_Token], Meta(max_length=20)] | None = None


_Account = Annotated[list[_Said], Meta(max_length=PLACES)]


@dataclass(frozen=True, slots=True)
class Place:
    """One token that was said, and what else could have been."""

    said: bytes
    likely: Mapping[bytes, float]
    """Probabilities of what was said and of the likeliest."""
    rest: float
    """No other token is likelier than this."""


def read(entries: Any) -> tuple[Place, ...]:
    """The account in `content` of a choice's `logprobs`, decoded; empty where there is none, or where it tells nothing.

    What is malformed, or no probability, tells nothing: an executor that does not want to tell can leave it all out as well.
    """
    if not isinstance(entries, list):
        return ()
    try:
        places = tuple(map(_place, msgspec.convert(entries[:PLACES], _Account)))
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return ()
    return () if all(place.likely[place.said] >= _CERTAIN for place in places) else places


def _place(entry: _Said) -> Place:
    likely: dict[bytes, float] = {}
    listed = (entry.top_logprobs or [])[:LIKELIEST]
    for token in listed:  # two may look the same: parts of a character
        likely[token.name] = likely.get(token.name, 0.0) + token.probability
    likely.setdefault(entry.name, entry.probability)
    left = 1 - sum(likely.values())
    if left < -_ROUNDING:
        raise ValueError("more than one token is certain")
    rest = min([max(0.0, left), *(token.probability for token in listed)])
    return Place(entry.name, likely, rest)


def distance(one: tuple[Place, ...], other: tuple[Place, ...]) -> float | None:
    """From 0 (the same) to 1: how far the two are apart at a place, on average; None if they are not `comparable`."""
    found: list[float] = []
    for ours, theirs in zip(one, other, strict=False):
        if not _share(ours, theirs):
            break
        found.append(_far(ours, theirs))
        if ours.said != theirs.said:
            break
    return sum(found) / len(found) if found else None


def comparable(one: tuple[Place, ...], other: tuple[Place, ...]) -> bool:
    """Whether anything can be told of the two."""
    return bool(one) and bool(other) and _share(one[0], other[0])


def alike(one: tuple[Place, ...], other: tuple[Place, ...]) -> bool:
    """Whether one model may have said both; no if they are not `comparable`."""
    found = distance(one, other)
    return found is not None and found <= APART


def _share(one: Place, other: Place) -> bool:
    """Servers name tokens in more than one way, some without the blank before a word: then no name is in both lists."""
    return not one.likely.keys().isdisjoint(other.likely)


def _far(one: Place, other: Place) -> float:
    """The variation as a share of what is told: of what can be said in many ways, a few tokens are only a part."""
    told = max(sum(one.likely.values()), sum(other.likely.values()))
    return _variation(one, other) / told if told > 0 else 0.0


def _variation(one: Place, other: Place) -> float:
    """The total variation between two distributions, at least: of a token that only one lists, what they must differ by."""
    more = less = 0.0
    for token in one.likely.keys() | other.likely.keys():
        ours, theirs = one.likely.get(token), other.likely.get(token)
        if theirs is None:
            more += max(0.0, (ours or 0.0) - other.rest)
        elif ours is None:
            less += max(0.0, theirs - one.rest)
        elif ours > theirs:
            more += ours - theirs
        else:
            less += theirs - ours
    return max(more, less)
