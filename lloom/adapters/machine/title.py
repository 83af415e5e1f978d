"""What `ps` shows of this process. It changes nothing else."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Final

# proc(5), /proc/pid/stat: fields 48 and 49, counted here from the third, the first one after the name.
_ARGUMENTS_START: Final = 45
_ARGUMENTS_END: Final = 46


def show(title: str) -> None:
    """Puts `title` in the place of the command line, cut to its length.

    Every user of the machine may read a command line, and Ray copies it into its tables: a prompt must not stay in it.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[_ARGUMENTS_START]), int(fields[_ARGUMENTS_END])
    room = end - start
    ctypes.memmove(start, title.encode()[: room - 1].ljust(room, b"\0"), room)
