"""Real nodes as real processes, each with its own Ray cluster."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 90
STOP_SECONDS = 40


def environment(**more: str) -> dict[str, str]:
    """This process's, without what would make a node differ from a user's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLOOM_", "RAY_"))}
    # Byte-code of our own modules would otherwise be compiled anew in each of a node's processes.
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return kept | {"PYTHONPATH": str(ROOT)} | more


@dataclass
class Process:
    """One `python -m lloom …`, its standard error read line by line."""

    popen: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    output: str = ""
    """Standard output, after `drain`."""
    killed: bool = False
    """By `kill`."""
    _queue: queue.Queue[str | None] = field(default_factory=queue.Queue)

    @classmethod
    def start(cls, *words: str, env: dict[str, str] | None = None, cwd: Path = ROOT) -> Process:
        """Runs the command line; nothing is waited for."""
        popen = subprocess.Popen(
            [sys.executable, "-m", "lloom", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env or environment(),
            cwd=cwd,
            start_new_session=True,
        )
        process = cls(popen)
        threading.Thread(target=process._read, daemon=True).start()
        return process

    def _read(self) -> None:
        assert self.popen.stderr is not None
        with self.popen.stderr as stderr:
            for line in stderr:
                self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def wait_for(self, text: str, seconds: float = START_SECONDS) -> str:
        """The first line, from here on, that contains `text`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{text!r} did not come within {seconds} s:\n" + "\n".join(self.lines)) from None
            if line is None:
                self._queue.put(None)  # for `drain`
                raise AssertionError(f"the process ended before {text!r}:\n" + "\n".join(self.lines))
            self.lines.append(line)
            if text in line:
                return line

    def drain(self) -> None:
        """Reads what is left of standard error, once the process has ended."""
        while (line := self._queue.get(timeout=STOP_SECONDS)) is not None:
            self.lines.append(line)
        assert self.popen.stdout is not None
        with self.popen.stdout as stdout:
            self.output = stdout.read()

    def signal(self, number: signal.Signals) -> None:
        """To the process itself, as a supervisor would."""
        self.popen.send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Its exit status."""
        return self.popen.wait(seconds)

    def stop(self) -> int:
        """Ends it as an operator would; its exit status."""
        if self.popen.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Kills all of it at once, as when the power fails: nobody says goodbye, and nobody cleans up."""
        family = self.family()
        self.killed = True
        for each in (psutil.Process(self.popen.pid), *family):
            with suppress(psutil.NoSuchProcess):  # its parent's death may have been enough
                each.kill()
        self.wait()
        assert not gone(family)

    def family(self) -> list[psutil.Process]:
        """All processes below it."""
        try:
            return psutil.Process(self.popen.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def actor(self, kind: str) -> psutil.Process:
        """The process of an actor, by the name of its class."""
        (found,) = (each for each in self.family() if command_line(each).startswith(f"ray::{kind}"))
        return found


def command_line(process: psutil.Process) -> str:
    """What it calls itself; nothing if it has ended meanwhile, as idle workers of Ray do at any time."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextmanager
def remains() -> Iterator[str]:
    """A `TMPDIR` for nodes that are killed, whose remains nobody else clears away; short, since they make sockets there."""
    with tempfile.TemporaryDirectory(prefix="lt-", dir="/tmp", ignore_cleanup_errors=True) as place:
        yield place


@contextmanager
def launch(*words: str, env: dict[str, str] | None = None) -> Iterator[Process]:
    """A node that is starting, and is stopped afterwards: with status 0 unless it was killed, or the test fails."""
    process = Process.start(*words, env=env)
    try:
        yield process
    finally:
        family = process.family()
        status = process.stop()
        process.drain()
    assert status == (-signal.SIGKILL if process.killed else 0), "\n".join(process.lines)
    assert not gone(family)


def gone(processes: list[psutil.Process], seconds: float = STOP_SECONDS) -> list[psutil.Process]:
    """Those of `processes` that still run after at most `seconds`."""
    return psutil.wait_procs(processes, timeout=seconds)[1]
