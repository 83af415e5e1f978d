"""However a node ends, nothing of it stays; and what keeps it from starting is said in one sentence."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support import ROOT, Process, environment, gone

from tests.free_ports import free_port

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty folder with a short name, for temporary files and homes: Ray's sockets are in it."""
    path = Path(tempfile.mkdtemp(prefix="lt-", dir="/tmp"))
    (path / "t").mkdir()
    yield path
    shutil.rmtree(path, ignore_errors=True)


def validator(place: Path) -> Process:
    words = ("role=validator", f"home={place / 'home'}", f"network.port={free_port()}")
    return Process.start(*words, env=environment(TMPDIR=str(place / "t")))


def nothing_left(place: Path, family: list[psutil.Process]) -> bool:
    return not gone(family) and not list((place / "t").iterdir())


def test_ctrl_c_while_ray_starts_leaves_nothing(place: Path) -> None:
    process = validator(place)
    process.wait_for("starting Ray")
    family = process.family()
    process.signal(signal.SIGINT)
    assert process.wait() == 130
    process.drain()
    assert family
    assert nothing_left(place, family)
    assert not any("Traceback" in line or "SIGTERM" in line for line in process.lines)


def kill_guard(process: Process) -> None:
    process.popen.kill()


def kill_node(process: Process) -> None:
    psutil.Process(process.popen.pid).children()[0].kill()


def hang_up(process: Process) -> None:
    process.signal(signal.SIGHUP)


@pytest.mark.parametrize(("end", "status"), [(kill_guard, -9), (kill_node, 137), (hang_up, 0)])
def test_a_running_node_leaves_nothing(end: Callable[[Process], None], status: int, place: Path) -> None:
    process = validator(place)
    process.wait_for(" is up")
    family = process.family()
    end(process)
    assert process.wait() == status
    assert len(family) > 5
    assert nothing_left(place, family)
    process.drain()


def test_a_closed_terminal_ends_the_node(place: Path) -> None:
    """As when a window is closed: the kernel hangs up, and nobody reads what is printed."""
    ours, its = pty.openpty()
    words = [sys.executable, "-m", "lloom", "role=validator", f"home={place / 'home'}", f"network.port={free_port()}"]
    environ = environment(TMPDIR=str(place / "t"))

    def take_terminal() -> None:
        os.setsid()
        os.close(os.open(os.ttyname(its), os.O_RDWR))  # the first terminal a session opens is its own

    popen = subprocess.Popen(words, stdin=its, stdout=its, stderr=its, env=environ, cwd=ROOT, preexec_fn=take_terminal)
    os.close(its)
    shown = b""
    while b" is up" not in shown:
        shown += os.read(ours, 4096)
    family = psutil.Process(popen.pid).children(recursive=True)
    os.close(ours)
    assert popen.wait(40) == 0
    assert len(family) > 5
    assert nothing_left(place, family)


def refused(*words: str, **env: str) -> str:
    """What a command says that must fail with status 2."""
    found = subprocess.run(
        [sys.executable, "-m", "lloom", *words],
        capture_output=True,
        text=True,
        env=environment(**env),
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert found.returncode == 2, found.stderr
    assert "Traceback" not in found.stderr
    return found.stderr.strip().splitlines()[-1]


def test_a_taken_port_is_said_before_anything_starts(place: Path) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        said = refused("role=validator", f"home={place}", f"network.port={port}")
    assert f"port {port} (UDP) on 127.0.0.1 is in use; choose another with network.port=" in said


def test_a_missing_api_key_is_named(place: Path) -> None:
    said = refused("role=executor", "llm=[openai]", f"home={place}", f"network.port={free_port()}", OPENAI_API_KEY="")
    assert "OPENAI_API_KEY" in said


def test_a_question_without_a_network_is_told_so(place: Path) -> None:
    nobody = f"network.bootstrap=[127.0.0.1:{free_port()}]"
    found = subprocess.run(
        [sys.executable, "-m", "lloom", "role=client", "prompt=hello", "model=x", f"home={place}", nobody],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert found.returncode == 1
    assert "not found the network" in found.stderr.splitlines()[-1]
    assert "Traceback" not in found.stderr
