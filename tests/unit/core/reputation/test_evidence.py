"""Evidence adds up the same in whatever order it is heard, and fades."""

from __future__ import annotations

from functools import reduce
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lloom.core.reputation.evidence import Evidence, Kind, aged, merged, seen

MEMORY = 100.0
observations = st.builds(seen, st.sampled_from(Kind), st.floats(0, 1000), right=st.booleans())


def total(known: list[Evidence]) -> Evidence:
    return reduce(lambda one, other: merged(one, other, MEMORY), known)


def numbers(known: Evidence) -> list[float]:
    return [known.at, *known.right, *known.wrong, known.waited, known.waits, known.tokens, known.seconds]


@given(st.lists(observations, min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_evidence_does_not_matter(known: list[Evidence], rng: Random) -> None:
    other = list(known)
    rng.shuffle(other)
    assert numbers(total(known)) == pytest.approx(numbers(total(other)))


@given(st.lists(observations, min_size=2, max_size=30), st.data())
def test_evidence_that_was_kept_apart_adds_up_to_the_same(known: list[Evidence], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(known) - 1))
    parts = [total(known[:cut]), total(known[cut:])]
    assert numbers(total(parts)) == pytest.approx(numbers(total(known)))


def test_what_is_as_old_as_the_memory_weighs_half() -> None:
    known = aged(seen(Kind.COUNT, 0.0, right=False), MEMORY, MEMORY)
    assert known.wrong[Kind.COUNT.value] == 0.5
    assert sum(known.right) == 0
    assert known.at == MEMORY


def test_speeds_are_means_of_what_weighs_most() -> None:
    old, new = Evidence(0.0, waited=10.0, waits=1.0, tokens=10.0, seconds=10.0), Evidence(MEMORY, waited=1.0, waits=1.0)
    both = merged(old, new, MEMORY)
    assert both.first_token == pytest.approx(4.0)
    assert both.rate == pytest.approx(1.0)
    assert (Evidence(0.0).first_token, Evidence(0.0).rate) == (None, None)


@pytest.mark.parametrize(
    "sums", [[0.0, [0.0] * 5, [0.0] * 6], [0.0, [-1.0] * 6, [0.0] * 6], [float("nan"), [0.0] * 6, [0.0] * 6]]
)
def test_sums_that_cannot_be_are_not_read(sums: list[object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode([*sums, 0.0, 0.0, 0.0, 0.0]), type=Evidence)
