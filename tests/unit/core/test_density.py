"""Crowding: ground ids raise the alarm, chance does not."""

from __future__ import annotations

from random import Random

import pytest

from lloom.core.density import SPACE, crowded, size

K = 8


def nearest(ids: list[int], target: int) -> list[int]:
    return sorted(one ^ target for one in ids)[:K]


def estimate(ids: list[int], rng: Random) -> float:
    """As a node does: the middle of a few measurements."""
    return sorted(size(nearest(ids, rng.randrange(SPACE))) for _ in range(9))[4]


@pytest.mark.parametrize("count", [10, 40, 160, 1000])
def test_the_size_is_estimated_within_a_factor_of_two_and_a_half(count: int) -> None:
    rng = Random(count)
    ids = [rng.randrange(SPACE) for _ in range(count)]
    assert count / 2.5 <= estimate(ids, rng) <= 2.5 * count


@pytest.mark.parametrize("count", [2, 5, 10, 40, 160, 1000])
def test_an_honest_network_raises_no_alarm(count: int) -> None:
    rng = Random(count)
    ids = [rng.randrange(SPACE) for _ in range(count)]
    known = estimate(ids, rng)
    assert not any(crowded(nearest(ids, rng.randrange(SPACE)), known) for _ in range(3000))


@pytest.mark.parametrize("count", [40, 160, 1000])
def test_ids_ground_nearer_than_all_others_are_noticed(count: int) -> None:
    rng = Random(count)
    ids = [rng.randrange(SPACE) for _ in range(count)]
    known = estimate(ids, rng)
    key = rng.randrange(SPACE)
    # As cheap as it can be had: each a hundred times nearer than chance would put the nearest.
    ground = [key ^ rng.randrange(SPACE // (100 * count)) for _ in range(K)]
    assert crowded(nearest(ids + ground, key), known)


def test_a_few_nodes_say_nothing() -> None:
    assert size([]) == 0
    assert not crowded([1, 2, 3, 4], 4)
    assert not crowded([], 1000)
