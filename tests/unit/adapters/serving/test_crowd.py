from __future__ import annotations

import pytest

from lloom.adapters.serving.crowd import Crowd
from lloom.core.errors import RetryElsewhere


def test_a_client_that_has_too_many_open_is_refused_and_others_are_not() -> None:
    crowd = Crowd(2)
    crowd.enter(b"a")
    crowd.enter(b"a")
    with pytest.raises(RetryElsewhere) as refused:
        crowd.enter(b"a")
    assert (refused.value.status, refused.value.code) == (429, "busy")
    crowd.enter(b"b")
    crowd.leave(b"a")
    crowd.enter(b"a")


def test_nothing_is_kept_of_who_has_none_open_refused_or_not() -> None:
    crowd = Crowd(0)
    with pytest.raises(RetryElsewhere):
        crowd.enter(b"a")
    crowd = Crowd(1)
    crowd.enter(b"a")
    crowd.leave(b"a")
    assert not crowd.open
