"""Who works at an executor, and what they serve together."""

from __future__ import annotations

from lloom.core.offer import Endpoint, ModelOffer
from lloom.core.roster import Roster

HERE, THERE = Endpoint("127.0.0.1", 9001), Endpoint("127.0.0.1", 9002)


def model(name: str) -> ModelOffer:
    return ModelOffer(id=name, context=2048, max_output=512, parallel=2, encoding="cl100k_base", backend="mock")


def test_all_workers_together_make_the_offer() -> None:
    roster = Roster(patience=10)
    assert roster.enlist("b", THERE, (model("y"), model("x")), now=0)
    assert roster.enlist("a", HERE, (model("x"),), now=0)
    assert roster.endpoints() == (HERE, THERE)
    assert [found.id for found in roster.models()] == ["x", "y"]


def test_enlisting_again_unchanged_changes_nothing() -> None:
    roster = Roster(patience=10)
    roster.enlist("a", HERE, (model("x"),), now=0)
    assert not roster.enlist("a", HERE, (model("x"),), now=5)
    assert roster.enlist("a", HERE, (model("y"),), now=6)


def test_a_silent_worker_is_dropped_and_one_that_was_heard_is_not() -> None:
    roster = Roster(patience=10)
    roster.enlist("a", HERE, (model("x"),), now=0)
    roster.enlist("b", THERE, (model("x"),), now=0)
    assert roster.heard("a", now=8)
    assert roster.expire(now=11) == ["b"]
    assert roster.endpoints() == (HERE,)


def test_an_unknown_worker_is_told_to_enlist() -> None:
    assert not Roster(patience=10).heard("a", now=0)
