"""A thread that takes work until the process ends, and never holds that end up."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonThread:
    """Runs blocking calls one after another, all in the same thread.

    Ray has its daemons killed when the thread that started them ends (prctl(2), PR_SET_PDEATHSIG), so that thread has to stay;
    and asyncio's own threads would keep a process that was interrupted waiting for `ray.init`.
    """

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True, name=name).start()

    async def run(self, call: Callable[[], T]) -> T:
        """The result of `call()`, or what it raises. Cancelling gives up the wait, not the call."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def settle(setter: Callable[[Any], None], value: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(lambda: None if result.done() else setter(value))

        def job() -> None:
            try:
                settle(result.set_result, call())
            except BaseException as error:  # noqa: BLE001 (handed to whoever waits)
                settle(result.set_exception, error)

        self._jobs.put(job)
        return await result

    def _work(self) -> None:
        while True:
            self._jobs.get()()
