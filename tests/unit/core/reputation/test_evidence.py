"""Evidence adds up the same in whatever order it is heard, and fades."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.reputation.evidence import Evidence, Kind
from lloom.core.reputation.tally import Tally

MEMORY = 100.0
Observation = tuple[Kind, float, bool]
observations = st.tuples(st.sampled_from(Kind), st.floats(0, 1000), st.booleans())


def tally(seen: Iterable[Observation]) -> Tally:
    total: Tally | None = None
    for kind, now, right in seen:
        total = total or Tally(now, MEMORY)
        total.note(kind, now, right=right)
        total.waited(2.0, now)
        total.wrote(9.0, 3.0, now)
    assert total is not None
    return total


def numbers(known: Evidence) -> list[float]:
    return [known.at, *known.right, *known.wrong, known.waited, known.waits, known.tokens, known.seconds]


@given(st.lists(observations, min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_evidence_does_not_matter(seen: list[Observation], rng: Random) -> None:
    other = list(seen)
    rng.shuffle(other)
    assert numbers(tally(seen).known) == pytest.approx(numbers(tally(other).known))


@given(st.lists(observations, min_size=2, max_size=30), st.data())
def test_evidence_that_was_kept_apart_adds_up_to_the_same(seen: list[Observation], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(seen) - 1))
    both = tally(seen[:cut])
    both.add(tally(seen[cut:]).known)
    assert numbers(both.known) == pytest.approx(numbers(tally(seen).known))


def test_what_is_as_old_as_the_memory_weighs_half() -> None:
    seen = tally([(Kind.COUNT, 0.0, False)])
    seen.add(Evidence(MEMORY))
    assert seen.known.wrong[Kind.COUNT] == 0.5
    assert sum(seen.known.right) == 0
    assert seen.known.at == MEMORY


def test_speeds_are_means_of_what_weighs_most() -> None:
    both = Tally(0.0, MEMORY)
    assert (both.first_token, both.rate) == (None, None)
    both.add(Evidence(0.0, waited=10.0, waits=1.0, tokens=10.0, seconds=10.0))
    both.waited(1.0, MEMORY)
    assert both.first_token == pytest.approx(4.0)
    assert both.rate == pytest.approx(1.0)


@pytest.mark.parametrize(
    "sums", [[0.0, [0.0] * 5, [0.0] * 6], [0.0, [-1.0] * 6, [0.0] * 6], [float("nan"), [0.0] * 6, [0.0] * 6]]
)
def test_sums_that_cannot_be_are_not_read(sums: list[object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode([*sums, 0.0, 0.0, 0.0, 0.0]), type=Evidence)
