"""What is kept of executors: the newest totals, and no more rows than there is room for."""

from __future__ import annotations

import sqlite3

import pytest

from lloom.adapters.journal import evidence
from lloom.core.identity import NodeId
from lloom.core.reputation.evidence import Evidence
from lloom.core.reputation.reputations import Row

A, B = NodeId(bytes([1]) * 20), NodeId(bytes([2]) * 20)


@pytest.fixture
def db() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.executescript(evidence.TABLES)
    return db


def row(executor: NodeId, model: str, at: float, waits: float = 1.0) -> Row:
    return Row(executor, model, Evidence(at, waited=2.0, waits=waits))


def test_the_newest_total_of_a_model_at_an_executor_counts(db: sqlite3.Connection) -> None:
    evidence.keep(db, [row(A, "m", 1.0), row(A, "n", 2.0), row(B, "m", 3.0)])
    evidence.keep(db, [row(A, "m", 4.0, waits=5.0)])
    assert evidence.known(db) == [row(A, "n", 2.0), row(B, "m", 3.0), row(A, "m", 4.0, waits=5.0)]


def test_those_of_which_nothing_was_heard_for_longest_make_room(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "MAX_ROWS", 2)
    for at in range(4):
        evidence.keep(db, [row(A, str(at), float(at))])
    assert [each.model for each in evidence.known(db)] == ["2", "3"]
