"""Group commit: many callers, one thread, one transaction for all who wait. It knows nothing of what is written."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from lloom.adapters.journal.file import Journal, Work
from lloom.core.errors import RetryElsewhere
from lloom.core.settings import AccountingSettings

T = TypeVar("T")


class _Job(NamedTuple):
    work: Work[Any]
    rows: int
    done: asyncio.Future[Any]


class Writer:
    """Its life is `open`, then `run` in one task while others `write`, then `close`."""

    def __init__(self, path: Path, settings: AccountingSettings) -> None:
        self._path = path
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, "journal")
        self._journal: Journal | None = None
        self._jobs: deque[_Job] = deque()
        self._rows = 0
        self._some = asyncio.Event()
        self._enough = asyncio.Event()

    async def open(self) -> None:
        """Opens the journal; ConfigError if it cannot be used."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    async def write(self, work: Work[T], rows: int) -> T:
        """What `work` returns, once it and the about `rows` rows it writes are on the disk; or raises what it raises.

        RetryElsewhere if too much waits already or the journal cannot be written. Who is cancelled may ask again for the same.
        """
        if self._jobs and self._rows + rows > self._settings.backlog:
            raise RetryElsewhere(
                "Accounting cannot keep up with its disk.", status=503, code="accounting_busy", retry_after=1
            )
        job = _Job(work, rows, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._rows += rows
        self._signal()
        return cast(T, await job.done)

    async def run(self) -> None:
        """Writes for ever. Raises sqlite3.Error when the journal fails, after telling those who waited for it."""
        while True:
            await self._some.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.batch_seconds):
                    await self._enough.wait()
            await self._commit(self._take())

    async def close(self) -> None:
        """Sends away who still waits, and closes the journal after what is being written."""
        _refuse(self._jobs)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    async def _commit(self, jobs: list[_Job]) -> None:
        works = [job.work for job in jobs]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self._write, works)
        except RetryElsewhere as error:
            results = [error] * len(jobs)
        except BaseException:
            _refuse(jobs)
            raise
        for job, result in zip(jobs, results, strict=True):
            _answer(job, result)

    def _take(self) -> list[_Job]:
        """The next jobs whose rows make one batch, and at least one."""
        taken: list[_Job] = []
        rows = 0
        while self._jobs and (not taken or rows + self._jobs[0].rows <= self._settings.batch):
            job = self._jobs.popleft()
            self._rows -= job.rows
            if not job.done.done():  # else its caller has given up
                taken.append(job)
                rows += job.rows
        self._signal()
        return taken

    def _signal(self) -> None:
        """Sets the events as the waiting jobs are."""
        for event, holds in ((self._some, bool(self._jobs)), (self._enough, self._rows >= self._settings.batch)):
            event.set() if holds else event.clear()

    # The three below run in the journal's thread, one after another.

    def _open(self) -> None:
        self._journal = Journal(self._path)

    def _write(self, works: list[Work[Any]]) -> list[Any]:
        assert self._journal is not None
        return self._journal.commit(works)

    def _close(self) -> None:
        if self._journal is not None:
            self._journal.close()


def _answer(job: _Job, result: Any) -> None:
    if job.done.done():  # its caller has given up
        return
    if isinstance(result, Exception):
        job.done.set_exception(result)
    else:
        job.done.set_result(result)


def _refuse(jobs: Iterable[_Job]) -> None:
    for job in jobs:
        _answer(job, RetryElsewhere("Accounting stops or restarts.", status=503, code="accounting_away", retry_after=1))
