from __future__ import annotations

import pytest

from lloom.adapters.serving.bodies import Bodies, Body
from lloom.core.errors import RetryElsewhere


def test_however_many_are_large_there_is_room_for_a_small_one() -> None:
    bodies = Bodies(1000)
    taken = 0
    for size in (500, 250, 125, 62):
        with pytest.raises(RetryElsewhere), Body(bodies) as greedy:
            greedy.grow(size + 1)
        Body(bodies).grow(size)
        taken += size
    assert (bodies.held, bodies.free) == (taken, 1000 - taken)
    Body(bodies).grow(30)


def test_what_is_over_gives_its_room_back_refused_or_not() -> None:
    bodies = Bodies(100)
    with Body(bodies) as body:
        body.grow(20)
        body.grow(30)
        assert (body.size, bodies.held) == (50, 50)
        with pytest.raises(RetryElsewhere):
            body.grow(1)
    assert bodies.held == 0
