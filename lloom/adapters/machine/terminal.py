"""What a person reads while a node starts, works and stops. It goes to standard error, so that answers have standard output."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator


class Terminal:
    """Lines with the seconds since the start before them. A terminal that was closed is no reason to fail."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """One line."""
        show(f"{time.monotonic() - self._began:6.1f} s  {text}\n")

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Says what is waited for, before and (with the time it took) after."""
        began = time.monotonic()
        self.say(f"{what} ...")
        yield
        self.say(f"{what}: done in {time.monotonic() - began:.1f} s")


def show(text: str) -> None:
    """Writes `text` to standard error, whether or not anybody is there to read it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()
