"""Runs nodes under the guard, for all commands that need some; turns what they raise into a sentence and a status."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lloom import node
from lloom.adapters.machine import title
from lloom.adapters.machine.guard import guarded
from lloom.adapters.machine.terminal import show
from lloom.core.errors import ConfigError, LloomError
from lloom.node import First, Node, Then


def run(make: Callable[[Path], Sequence[Node]], then: Then | None = None, first: First | None = None) -> int:
    """Exit status of the nodes that `make(folder)` names, run until a signal comes or `then` has ended; `first` comes
    before they start.

    They run in a process session of their own; `folder` is private to them and gone afterwards.
    """

    def work(folder: Path) -> int:
        title.show("lloom")
        try:
            return node.run(make(folder), folder, then, first)
        except LloomError as error:
            show(f"lloom: {error}\n")
            return 2 if isinstance(error, ConfigError) else 1

    title.show("lloom")
    return guarded(work)
