"""The guard with real processes: whatever happens to its child, nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]

# A node in miniature: a daemon in a process group of its own, as Ray's workers are, and a loop that ends at STOP.
PROGRAM = """
import os, pathlib, signal, subprocess, sys, time
from lloom.adapters.machine.guard import STOP, guarded

def work(folder):
    def stop(*_):
        print("asked to stop", flush=True)
        sys.exit({status})
    signal.signal(STOP, {handler})
    daemon = subprocess.Popen(["sleep", "600"], process_group=0)
    print(os.getpid(), daemon.pid, folder, flush=True)
    while True:
        time.sleep(0.05)

sys.exit(guarded(work))
"""


@contextmanager
def guard(
    status: int = 0, handler: str = "stop"
) -> Iterator[tuple[subprocess.Popen[str], psutil.Process, psutil.Process, Path]]:
    """The guard, its child, the child's daemon, and their folder."""
    program = PROGRAM.format(status=status, handler=handler)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    with process:
        child, daemon, folder = process.stdout.readline().split()
        try:
            yield process, psutil.Process(int(child)), psutil.Process(int(daemon)), Path(folder)
        finally:
            if process.poll() is None:
                process.kill()


def all_gone(*processes: psutil.Process) -> bool:
    return not psutil.wait_procs(processes, timeout=20)[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_child_and_nothing_stays(number: signal.Signals) -> None:
    with guard(status=7) as (process, child, daemon, folder):
        process.send_signal(number)
        assert process.wait(20) == 7
        assert all_gone(child, daemon)
        assert not folder.exists()


def test_a_child_that_ignores_the_first_signal_is_killed_by_the_second() -> None:
    with guard(handler="lambda *_: print('heard', flush=True)") as (process, child, daemon, folder):
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "heard\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 128 + signal.SIGKILL
        assert all_gone(child, daemon)
        assert not folder.exists()


def test_after_the_child_was_killed_its_daemons_end_too() -> None:
    with guard() as (process, child, daemon, folder):
        child.kill()
        assert process.wait(20) == 128 + signal.SIGKILL
        assert all_gone(daemon)
        assert not folder.exists()


def test_after_the_guard_was_killed_the_child_stops_and_cleans_up() -> None:
    with guard() as (process, child, daemon, folder):
        process.kill()
        process.wait(20)
        assert all_gone(child, daemon)
        assert not folder.exists()


def test_the_child_has_a_session_of_its_own() -> None:
    with guard() as (process, child, _daemon, _folder):
        assert os.getsid(child.pid) == child.pid != os.getsid(process.pid)
