"""Accounting as its callers see it: batches, repeats, restarts, and what happens while the journal is away."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from accounting_support import CLIENT, COST, EXECUTOR, draft, numbers, place, read, settings

from lloom.actors.accounting import Accounting, journal_path
from lloom.adapters.journal.file import Journal
from lloom.core.billing.receipt import RECEIPT
from lloom.core.eip712 import Domain, signer
from lloom.core.errors import ConfigError, PeerFault, RetryElsewhere
from lloom.core.identity import Identity
from lloom.core.messages import SignedReceipt


def accounting(home: Path, **limits: Any) -> Accounting:
    return Accounting(place(home, **limits))


@asynccontextmanager
async def serving(subject: Accounting) -> AsyncIterator[Accounting]:
    task = asyncio.create_task(subject.serve())
    try:
        yield subject
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Accounting]:
    async with asyncio.timeout(60), serving(accounting(tmp_path)) as subject:
        yield subject


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many works each commit took."""
    sizes: list[int] = []
    real = Journal.commit

    def commit(self: Journal, works: Any) -> Any:
        sizes.append(len(works))
        return real(self, works)

    monkeypatch.setattr(Journal, "commit", commit)
    return sizes


async def test_a_receipt_is_signed_by_the_node_and_on_the_disk_when_it_is_returned(
    running: Accounting, tmp_path: Path
) -> None:
    (signed,) = await running.issue([draft(1)])
    assert signer(Domain().digest(RECEIPT, signed.receipt), signed.signature) == EXECUTOR.address
    assert numbers(journal_path(settings(tmp_path), "", EXECUTOR.address)) == [1]


async def test_callers_at_the_same_time_share_commits_and_each_gets_his_own(
    running: Accounting, commits: list[int]
) -> None:
    answers = await asyncio.gather(*(running.issue([draft(number)]) for number in range(100)))
    assert read([signed for (signed,) in answers]) == [(seq, seq * COST) for seq in range(1, 101)]
    assert commits == [32, 32, 32, 4]


async def test_a_full_batch_waits_for_nobody(tmp_path: Path) -> None:
    async with asyncio.timeout(60), serving(accounting(tmp_path, batch_seconds=3600)) as subject:
        answers = await asyncio.gather(*(subject.issue([draft(number)]) for number in range(32)))
        assert len(answers) == 32


async def test_a_call_larger_than_a_batch_is_committed_alone_and_whole(running: Accounting, commits: list[int]) -> None:
    many, (one,) = await asyncio.gather(running.issue([*map(draft, range(100))]), running.issue([draft(100)]))
    assert read([*many, one]) == [(seq, seq * COST) for seq in range(1, 102)]
    assert commits == [1, 1]


async def test_the_same_request_gets_the_same_bytes_however_often_and_at_once_it_is_asked_for(
    running: Accounting,
) -> None:
    answers = await asyncio.gather(*(running.issue([draft(1), draft(2)]) for _ in range(10)))
    answers.append(await running.issue([draft(1), draft(2)]))
    assert all(answer == answers[0] for answer in answers)
    assert read(answers[0]) == [(1, COST), (2, 2 * COST)]


async def test_nothing_to_issue_is_no_error(running: Accounting) -> None:
    assert await running.issue([]) == []
    await running.keep([])


async def test_calls_wait_for_the_journal_to_open(tmp_path: Path) -> None:
    subject = accounting(tmp_path)
    async with asyncio.timeout(60):
        early = asyncio.create_task(subject.issue([draft(1)]))
        await asyncio.sleep(0)
        async with serving(subject):
            assert read(await early) == [(1, COST)]


async def test_calls_do_not_wait_for_ever(tmp_path: Path) -> None:
    with pytest.raises(RetryElsewhere, match="not open yet"):
        await accounting(tmp_path, ready_seconds=0.001).issue([draft(1)])


async def test_a_restarted_process_continues_the_numbering_and_remembers_what_it_gave(tmp_path: Path) -> None:
    given = []
    async with asyncio.timeout(60):
        for life in range(3):
            async with serving(accounting(tmp_path)) as subject:
                given += await subject.issue([draft(2 * life), draft(2 * life + 1)])
                assert await subject.issue([*map(draft, range(len(given)))]) == given
    assert read(given) == [(seq, seq * COST) for seq in range(1, 7)]


async def test_the_same_actor_can_serve_again_and_calls_in_between_wait_for_that(tmp_path: Path) -> None:
    subject = accounting(tmp_path)
    async with asyncio.timeout(60):
        async with serving(subject):
            await subject.issue([draft(1)])
        between = asyncio.create_task(subject.issue([draft(2)]))
        await asyncio.sleep(0)
        async with serving(subject):
            assert read(await between) == [(2, 2 * COST)]


async def test_a_second_process_of_the_same_node_is_told_so(running: Accounting, tmp_path: Path) -> None:
    await running.ready()
    with pytest.raises(ConfigError, match="in use by process"):
        await accounting(tmp_path).serve()


async def test_nodes_of_one_home_have_a_journal_each(running: Accounting, tmp_path: Path) -> None:
    await running.issue([draft(1)])
    other = Accounting(place(tmp_path, Identity.generate()))
    async with serving(other):
        assert read(await other.issue([draft(1)])) == [(1, COST)]


async def test_kept_receipts_are_on_the_disk(running: Accounting, tmp_path: Path) -> None:
    signed = await running.issue([*map(draft, range(5))])
    await asyncio.gather(*(running.keep([(EXECUTOR.address, item)]) for item in signed))
    with sqlite3.connect(journal_path(settings(tmp_path), "", EXECUTOR.address)) as db:
        rows = db.execute("SELECT executor, receipt, signature FROM kept ORDER BY rowid").fetchall()
    db.close()
    assert rows == [(EXECUTOR.address, item.receipt, item.signature) for item in signed]


async def test_one_callers_mistake_is_his_own(running: Accounting) -> None:
    wrong, right = await asyncio.gather(
        running.keep([(CLIENT, SignedReceipt(b"", bytes(65)))]), running.issue([draft(1)]), return_exceptions=True
    )
    assert isinstance(wrong, PeerFault)
    assert isinstance(right, list)


class Stuck:
    """Holds the journal's thread until let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, then: Callable[[], None] = lambda: None) -> None:
        self.let_go = threading.Event()
        self.held = threading.Event()
        real = Journal.commit

        def commit(journal: Journal, works: Any) -> Any:
            self.held.set()
            assert self.let_go.wait(60)
            then()
            return real(journal, works)

        monkeypatch.setattr(Journal, "commit", commit)

    async def wait(self) -> None:
        assert await asyncio.to_thread(self.held.wait, 60)


async def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with asyncio.timeout(60), serving(accounting(tmp_path, backlog=50)) as subject:
        stuck = Stuck(monkeypatch)
        first = asyncio.create_task(subject.issue([draft(0)]))
        await stuck.wait()
        waiting = [asyncio.create_task(subject.issue([draft(number)])) for number in range(1, 51)]
        await asyncio.sleep(0)
        with pytest.raises(RetryElsewhere, match="cannot keep up") as busy:
            await subject.issue([draft(51)])
        assert busy.value.retry_after
        stuck.let_go.set()
        answers = await asyncio.gather(first, *waiting)
        assert read([signed for (signed,) in answers]) == [(seq, seq * COST) for seq in range(1, 52)]


async def test_a_caller_that_gives_up_before_its_turn_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asyncio.timeout(60), serving(accounting(tmp_path)) as subject:
        stuck = Stuck(monkeypatch)
        first = asyncio.create_task(subject.issue([draft(0)]))
        await stuck.wait()
        impatient = asyncio.create_task(subject.issue([draft(1)]))
        await asyncio.sleep(0)
        impatient.cancel()
        stuck.let_go.set()
        await first
        assert read(await subject.issue([draft(2)])) == [(2, 2 * COST)]


async def test_a_caller_that_gives_up_in_its_turn_gets_the_same_receipt_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asyncio.timeout(60), serving(accounting(tmp_path)) as subject:
        stuck = Stuck(monkeypatch)
        impatient = asyncio.create_task(subject.issue([draft(1)]))
        await stuck.wait()
        impatient.cancel()
        stuck.let_go.set()
        assert read(await subject.issue([draft(2), draft(1)])) == [(2, 2 * COST), (1, COST)]


async def test_a_stop_sends_the_waiting_away_and_finishes_what_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = accounting(tmp_path)
    stuck = Stuck(monkeypatch)
    async with asyncio.timeout(60):
        async with serving(subject):
            in_turn = asyncio.create_task(subject.issue([draft(1)]))
            await stuck.wait()
            waiting = asyncio.create_task(subject.issue([draft(2)]))
            await asyncio.sleep(0)
            stuck.let_go.set()
        answers = await asyncio.gather(in_turn, waiting, return_exceptions=True)
        assert [type(answer) for answer in answers] == [RetryElsewhere, RetryElsewhere]
        async with serving(subject):
            assert read(await subject.issue([draft(1), draft(2)])) == [(1, COST), (2, 2 * COST)]


async def test_a_journal_that_fails_ends_serving_and_tells_who_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise sqlite3.OperationalError("disk I/O error")

    stuck = Stuck(monkeypatch, then=fail)
    stuck.let_go.set()
    subject = accounting(tmp_path)
    async with asyncio.timeout(60):
        life = asyncio.create_task(subject.serve())
        with pytest.raises(RetryElsewhere, match="stops or restarts"):
            await subject.issue([draft(1)])
        with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
            await life


async def test_a_stuck_disk_is_told_to_all_of_the_batch_and_serving_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asyncio.timeout(60), serving(accounting(tmp_path)) as subject:
        with monkeypatch.context() as patch:

            def stuck(_journal: Journal, _works: Any) -> Any:
                raise RetryElsewhere("The journal cannot be written", status=503, code="journal_stuck")

            patch.setattr(Journal, "commit", stuck)
            answers = await asyncio.gather(
                *(subject.issue([draft(number)]) for number in range(3)), return_exceptions=True
            )
            assert [type(answer) for answer in answers] == [RetryElsewhere] * 3
        assert read(await subject.issue([draft(1)])) == [(1, COST)]
