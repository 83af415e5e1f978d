"""A small process that outlives the node it starts: passes signals on, leaves nothing behind. It knows nothing of the node.

Ray's daemons survive a driver that is killed, or interrupted while it starts them. So the node runs in a session of its own,
under this guard: whatever happens to the node, every process of that session ends, and the folder it worked in is removed.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_LONGEST_PLACE: Final = 20
"""Ray puts sockets into the folder, and their paths must not exceed 107 bytes (unix(7))."""
_FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_SECONDS: Final = 0.05
"""Between two looks whether the child has ended: nobody notices that an end is seen, or a signal passed on, so much later."""
STOP: Final = signal.SIGUSR1
"""What the child gets for each of them: Ray installs a handler of its own for TERM, which prints a stack and dies."""


def guarded(work: Callable[[Path], int]) -> int:
    """Runs `work(folder)` in a child process with a session and a private folder of its own; its exit status.

    The first INT, TERM or HUP reaches the child as STOP; a second one kills it. Call it before any thread is started: it forks.
    """
    place = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="lloom-", dir=place if len(place) <= _LONGEST_PLACE else "/tmp"))  # noqa: S108 (a new folder)
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        _run(work, folder, guard)
    try:
        return _watch(child)
    finally:
        sweep(child)
        shutil.rmtree(folder, ignore_errors=True)


def sweep(session: int) -> None:
    """Kills every process of `session` but the calling one."""
    for _ in range(3):  # a process may have been forked while we looked
        members = [pid for pid in _members(session) if pid != os.getpid()]
        if not members:
            return
        for pid in members:
            _kill(pid, signal.SIGKILL)


def _run(work: Callable[[Path], int], folder: Path, guard: int) -> None:
    """The child's whole life; never returns."""
    status = 1
    try:
        os.setsid()
        _die_with_parent(guard)
        status = work(folder)
    except KeyboardInterrupt:
        status = 130
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    finally:
        # Should the guard be dead, nobody else cleans up.
        sweep(os.getpid())
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(status)


def _die_with_parent(guard: int) -> None:
    """Has the kernel send STOP when the guard dies, however it dies (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, STOP)
    if os.getppid() != guard:  # it died before we asked
        os.kill(os.getpid(), STOP)


def _watch(child: int) -> int:
    """Waits for the child, passing signals on; its exit status as a shell would tell it."""
    seen: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        seen.append(number)
        _kill(child, STOP if len(seen) == 1 else signal.SIGKILL)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        raw = _waited(child)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    status = os.waitstatus_to_exitcode(raw)
    return 128 - status if status < 0 else status


def _waited(child: int) -> int:
    """The status of `child` once it has ended. Python hears a signal that comes just before a system call only after it."""
    while True:
        ended, raw = os.waitpid(child, os.WNOHANG)
        if ended:
            return raw
        time.sleep(_LOOK_SECONDS)


def _members(session: int) -> Iterator[int]:
    """The processes of `session`, from /proc (proc(5): the session is the fourth field after the name)."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(after_name[3]) == session and after_name[0] != "Z":
                yield int(entry.name)


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
