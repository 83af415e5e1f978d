"""A clock that a test sets forward, so that a time is over when what has to happen before it has happened, and not sooner."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def leaping() -> Callable[[float], None]:
    """Sets the clock of the running loop forward by so many seconds whenever it is called: what was to be over is over then.

    Only asyncio's own loop has a clock that can be set. Call it before anything that keeps the loop's clock is made.
    """
    loop = asyncio.get_running_loop()
    true, ahead = loop.time, 0.0

    def leap(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    loop.time = lambda: true() + ahead  # type: ignore[method-assign]
    return leap
