"""A second attempt behind one that is late: whichever has content first is kept. It does not say when that is worth it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from lloom.adapters.routing.attempt import Attempt

Trying = Coroutine[Any, Any, Attempt]
"""Gives an attempt whose first content has come. Cancelled, it leaves nothing behind."""


async def hedged(first: Trying, late: float, second: Callable[[], Trying | None]) -> Attempt:
    """What `first` gives, or after `late` seconds perhaps what `second` gives, whichever comes first; the other one is ended.

    If both fail, the error of the one that failed last.
    """
    tasks = [asyncio.ensure_future(first)]
    try:
        await asyncio.wait(tasks, timeout=late)
        other = None if tasks[0].done() else second()
        if other is not None:
            tasks.append(asyncio.ensure_future(other))
        kept = await _first_of(tasks)
        await _end([task for task in tasks if task is not kept])
    except BaseException:
        await _end(tasks)  # the one that was to be kept, too, if its caller leaves now
        raise
    return kept.result()


async def _first_of(tasks: Sequence[asyncio.Future[Attempt]]) -> asyncio.Future[Attempt]:
    """The first that went well, else the last one."""
    pending = set(tasks)
    while True:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        well = [task for task in done if task.exception() is None]
        if well or not pending:
            return (well or list(done))[0]


async def _end(tasks: Sequence[asyncio.Future[Attempt]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and task.exception() is None:
            await task.result().close()
