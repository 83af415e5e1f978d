"""The journal on a real disk, killed, locked out and full."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from accounting_support import CLIENT, COST, EXECUTOR, draft, numbers, read, sign

from lloom.adapters.journal import receipts, transactions
from lloom.adapters.journal.file import Journal
from lloom.core.billing.lane import Lane
from lloom.core.billing.receipt import Draft, read_receipt
from lloom.core.errors import ConfigError, PeerFault, RetryElsewhere
from lloom.core.messages import SignedReceipt

WRITE_FOR_EVER = """
import sys
from pathlib import Path
from accounting_support import draft, sign
from lloom.adapters.journal import receipts
from lloom.adapters.journal.file import Journal

journal, first = Journal(Path(sys.argv[1])), int(sys.argv[2])
for number in range(first, first + 1_000_000, 3):
    drafts = [draft(number + step, lane=step % 2) for step in range(3)]
    (issued,) = journal.commit([lambda db: receipts.issue(db, drafts, sign)])
    print(number, *(item.receipt.hex() + item.signature.hex() for item in issued), flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "receipts.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path)
    yield journal
    journal.close()


def issue(journal: Journal, *drafts: Draft) -> list[SignedReceipt]:
    (result,) = journal.commit([lambda db: receipts.issue(db, drafts, sign)])
    if isinstance(result, Exception):
        raise result
    return list(result)


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that runs `code` with our modules, its output to be read."""
    folders = os.pathsep.join((str(Path(__file__).parent), str(Path(__file__).parents[2])))
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": folders},
    )


def test_receipts_are_numbered_without_gaps_on_each_lane(journal: Journal) -> None:
    assert read(issue(journal, draft(1), draft(2), draft(3, lane=9))) == [(1, COST), (2, 2 * COST), (1, COST)]
    assert read(issue(journal, draft(4, lane=9), draft(5))) == [(2, 2 * COST), (3, 3 * COST)]


def test_what_was_served_on_a_lane_is_found_without_reading_its_receipts() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(receipts.TABLES)
        asked: list[str] = []
        db.set_trace_callback(asked.append)
        assert not receipts.served(db, bytes(48), bytes(32))
        [plan] = db.execute(f"EXPLAIN QUERY PLAN {asked[0]}").fetchall()
        assert "USING INDEX issued_models (lane=? AND <expr>=?)" in plan[-1]


@pytest.mark.parametrize("lane", [2**63, 2**64 - 1])
def test_any_lane_number_a_client_may_choose_can_be_written(journal: Journal, lane: int) -> None:
    assert read(issue(journal, draft(1, lane), draft(2, lane))) == [(1, COST), (2, 2 * COST)]


@pytest.mark.parametrize("number", [0, 2**63 - 1, 2**63, 2**64 - 1])
def test_any_lane_number_a_client_may_choose_can_be_redeemed(journal: Journal, number: int) -> None:
    claim = Lane(b"c" * 20, b"t" * 20, number), 5
    journal.commit([lambda db: transactions.add(db, b"a" * 20, b"data", [claim])])
    assert journal.commit([transactions.claims]) == [[claim]]


def test_the_same_request_gets_the_very_same_receipt(journal: Journal, path: Path) -> None:
    first = issue(journal, draft(1), draft(2), draft(1))
    assert first[0] == first[2]
    assert issue(journal, draft(2), draft(1)) == [first[1], first[0]]
    assert numbers(path) == [1, 2]


def test_a_reopened_journal_continues_where_it_was(path: Path) -> None:
    journal = Journal(path)
    before = issue(journal, draft(1), draft(2))
    journal.close()
    journal = Journal(path)
    assert issue(journal, draft(2), draft(1)) == before[::-1]
    assert read(issue(journal, draft(3))) == [(3, 3 * COST)]
    journal.close()


def test_a_work_that_fails_takes_its_own_changes_back_and_no_others(journal: Journal, path: Path) -> None:
    def fails(db: sqlite3.Connection) -> None:
        receipts.issue(db, [draft(2), draft(3)], sign)
        raise ValueError("wrong")

    def works(number: int, db: sqlite3.Connection) -> Any:
        return receipts.issue(db, [draft(number)], sign)

    first, failed, last = journal.commit([partial(works, 1), fails, partial(works, 4)])
    assert isinstance(failed, ValueError)
    assert read(first + last) == [(1, COST), (2, 2 * COST)]
    assert numbers(path) == [1, 2]


def test_a_receipt_that_cannot_be_signed_leaves_no_gap(journal: Journal) -> None:
    def refuse(_receipt: Any) -> SignedReceipt:
        raise OverflowError

    (failed,) = journal.commit([lambda db: receipts.issue(db, [draft(1)], refuse)])
    assert isinstance(failed, OverflowError)
    assert read(issue(journal, draft(2))) == [(1, COST)]


def test_kept_receipts_are_stored_once_for_each_request_and_executor(journal: Journal, path: Path) -> None:
    first, second = issue(journal, draft(1), draft(2))
    twin = SignedReceipt(first.receipt, bytes(65))
    kept = [(EXECUTOR.address, first), (EXECUTOR.address, second), (CLIENT, first)]
    items = [*kept[:2], (EXECUTOR.address, twin), kept[2]]
    (fresh, known) = journal.commit([lambda db: receipts.keep(db, items)] * 2)
    assert [each.request_digest for each in fresh] == [read_receipt(each.receipt).request_digest for _, each in kept]
    assert known == []
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT executor, receipt, signature FROM kept ORDER BY rowid").fetchall()
    db.close()
    assert rows == [(executor, each.receipt, each.signature) for executor, each in kept]


def test_what_is_no_receipt_is_not_kept(journal: Journal) -> None:
    (failed,) = journal.commit([lambda db: receipts.keep(db, [(CLIENT, SignedReceipt(b"x", bytes(65)))])])
    assert isinstance(failed, PeerFault)


@pytest.mark.parametrize("mask", [0, 0o022])
def test_only_the_user_can_read_the_journal_whatever_the_umask(path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        journal = Journal(path)
        issue(journal, draft(1))
    finally:
        os.umask(before)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    modes = {file.name.removeprefix(path.name): file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == {"": 0o600, "-wal": 0o600, "-shm": 0o600, ".lock": 0o600}
    journal.close()


def test_a_journal_that_others_could_read_is_closed_to_them(path: Path) -> None:
    Journal(path).close()
    path.chmod(0o644)
    Journal(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_every_commit_waits_for_the_disk(journal: Journal) -> None:
    settings = [journal._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 2]


def test_a_killed_process_loses_no_receipt_it_returned_and_leaves_no_gap(path: Path) -> None:
    returned: dict[int, list[str]] = {}
    for kill, commits in enumerate((1, 2, 5, 40, 150)):
        with child(WRITE_FOR_EVER, path, kill * 1_000_000) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(commits)]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        assert process.returncode == -signal.SIGKILL
        whole = [line.split() for line in lines if line.endswith("\n")]
        returned |= {int(first): receipts for first, *receipts in whole}

        journal = Journal(path)
        for first, given in returned.items():
            again = issue(journal, *(draft(first + step, lane=step % 2) for step in range(3)))
            assert [item.receipt.hex() + item.signature.hex() for item in again] == given
        per_lane = [numbers_of(journal, lane) for lane in (0, 1)]
        assert per_lane == [list(range(1, len(found) + 1)) for found in per_lane]
        assert len(per_lane[0]) == 2 * len(per_lane[1]) >= 2 * len(returned)
        journal.close()


def numbers_of(journal: Journal, lane: int) -> list[int]:
    rows = journal._db.execute(
        "SELECT seq FROM issued WHERE substr(lane, 41) = ? ORDER BY seq", (lane.to_bytes(8, "big"),)
    )
    return [seq for (seq,) in rows]


def test_two_processes_cannot_write_one_journal(path: Path) -> None:
    with child(WRITE_FOR_EVER, path, 0) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(ConfigError, match=f"in use by process {process.pid}: stop that node"):
                Journal(path)
        finally:
            process.kill()
    Journal(path).close()


def test_one_process_cannot_open_a_journal_twice(journal: Journal, path: Path) -> None:
    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"):
        Journal(path)
    assert read(issue(journal, draft(1))) == [(1, COST)]


def test_a_full_disk_refuses_for_now_and_goes_on_when_there_is_room(journal: Journal, path: Path) -> None:
    first = issue(journal, draft(1))
    (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(RetryElsewhere, match="The journal cannot be written: database or disk is full"):
        issue(journal, *map(draft, range(100)))
    assert numbers(path) == [1]
    journal._db.execute("PRAGMA max_page_count = 1000000")
    assert issue(journal, draft(1)) == first
    assert read(issue(journal, draft(2))) == [(2, 2 * COST)]


def test_another_program_at_work_on_the_file_refuses_for_now(journal: Journal, path: Path) -> None:
    journal._db.execute("PRAGMA busy_timeout = 0")
    stranger = sqlite3.connect(path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    with pytest.raises(RetryElsewhere, match="database is locked"):
        issue(journal, draft(1))
    stranger.close()
    assert read(issue(journal, draft(1))) == [(1, COST)]


def test_a_write_that_the_system_refuses_returns_nothing_and_keeps_what_was_there(path: Path) -> None:
    small = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))"
    with child(small + WRITE_FOR_EVER, path, 0) as process:
        assert process.stdout is not None
        lines = process.stdout.readlines()
        assert process.stderr is not None
        assert process.stderr.readlines()[-1] == "sqlite3.OperationalError: disk I/O error\n"
    journal = Journal(path)
    for line in lines:
        first, *receipts = line.split()
        again = issue(journal, *(draft(int(first) + step, lane=step % 2) for step in range(3)))
        assert [item.receipt.hex() + item.signature.hex() for item in again] == receipts
    assert len(numbers_of(journal, 1)) == len(lines) > 0
    journal.close()


def test_a_read_only_folder_is_named_in_one_sentence() -> None:
    # Even root may not write here.
    with pytest.raises(ConfigError, match=r"^The journal /sys/lloom/receipts.sqlite cannot be opened: [\w -]+\.$"):
        Journal(Path("/sys/lloom/receipts.sqlite"))


def test_a_folder_that_is_a_file_is_named_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(ConfigError, match="cannot be opened: File exists"):
        Journal(tmp_path / "home" / "receipts.sqlite")


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_file_that_is_no_journal_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    for _ in range(2):  # and the lock is given back
        with pytest.raises(ConfigError, match=f"The journal {path} cannot be used"):
            Journal(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("statement", ["PRAGMA user_version = 99", "PRAGMA application_id = 7"])
def test_a_journal_of_another_version_is_refused(path: Path, statement: str) -> None:
    Journal(path).close()
    with sqlite3.connect(path) as db:
        db.execute(statement)
    db.close()
    with pytest.raises(ConfigError, match="another version of Lloom"):
        Journal(path)
