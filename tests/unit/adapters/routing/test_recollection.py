"""Evidence over restarts: clocks that begin anew, and stores that are away or broken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from lloom.adapters.routing.recollection import Recollection
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import NodeId
from lloom.core.reputation.evidence import Kind
from lloom.core.reputation.reputations import Reputations, Row

EXECUTOR = NodeId(bytes([1]) * 20)
DAY = 86_400.0


class Store:
    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.error: Exception | None = None

    async def recall(self) -> list[Row]:
        self._there()
        return self.rows

    async def keep(self, rows: list[Row]) -> None:
        self._there()
        self.rows = rows

    def _there(self) -> None:
        if self.error is not None:
            raise self.error


def ahead(seconds: float) -> Callable[[], float]:
    """A wall clock that is so much ahead of the loop's."""
    return lambda: asyncio.get_running_loop().time() + seconds


def now() -> float:
    return asyncio.get_running_loop().time()


async def seen(store: Store, clock: Callable[[], float], times: int = 8) -> Reputations:
    book = Reputations(DAY)
    recollection = Recollection(book, store, clock)
    await recollection.recall()
    for _ in range(times):
        book.note(EXECUTOR, "m", Kind.COUNT, now(), right=False)
    await recollection.close(10)
    return book


async def test_evidence_ages_while_nobody_runs_though_the_machine_was_started_anew() -> None:
    store = Store()
    await seen(store, ahead(1e9))
    assert store.rows[0].known.at == pytest.approx(now() + 1e9, abs=60)
    later = Reputations(DAY)
    await Recollection(later, store, ahead(1e9 + DAY)).recall()
    assert later.evidence(EXECUTOR, now()).wrong[Kind.COUNT] == pytest.approx(4, rel=0.01)


async def test_runs_add_up() -> None:
    store = Store()
    for _ in range(3):
        await seen(store, ahead(1e9))
    assert store.rows[0].known.wrong[Kind.COUNT] == pytest.approx(24, rel=0.01)


async def test_a_clock_that_was_set_back_does_not_outweigh_what_is_seen_now() -> None:
    store = Store()
    await seen(store, ahead(1e9))
    later = Reputations(DAY)
    await Recollection(later, store, ahead(1e9 - 30 * DAY)).recall()
    later.note(EXECUTOR, "m", Kind.COUNT, now(), right=False)
    assert later.evidence(EXECUTOR, now()).wrong[Kind.COUNT] == pytest.approx(9, rel=0.01)


async def test_what_cannot_be_kept_is_kept_the_next_time_and_what_fails_for_another_reason_is_dropped() -> None:
    store, book = Store(), Reputations(DAY)
    recollection = Recollection(book, store, ahead(1e9))
    await recollection.recall()
    book.note(EXECUTOR, "m", Kind.COUNT, now(), right=False)
    store.error = RetryElsewhere("away")
    await recollection.keep()
    store.error = None
    await recollection.keep()
    assert len(store.rows) == 1
    book.note(EXECUTOR, "n", Kind.COUNT, now(), right=False)
    store.error = ValueError("broken")
    await recollection.keep()
    store.error = None
    await recollection.keep()
    assert [row.model for row in store.rows] == ["m"]


async def test_where_nothing_can_be_read_nothing_is_written_over_it() -> None:
    store, book = Store(), Reputations(DAY)
    store.error = ValueError("broken")
    recollection = Recollection(book, store, ahead(1e9))
    await recollection.run()
    store.error = None
    book.note(EXECUTOR, "m", Kind.COUNT, now(), right=False)
    await recollection.close(10)
    assert store.rows == []
