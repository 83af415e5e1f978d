"""Nodes in the operator's own Ray cluster: welcome where it asks for a token, refused where it takes anybody's orders."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from support import ROOT, command_line, environment, launch

from tests.free_ports import free_port

pytestmark = pytest.mark.timeout(240)

TOKEN = "0123456789abcdef" * 4


@pytest.fixture
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="lt-", dir="/tmp"))
    (path / "token").write_text(TOKEN)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def cluster(place: Path, mode: str) -> Iterator[str]:
    """The address of a Ray head on loopback."""
    port = 6000 + free_port() % 1000  # away from the ports that Ray gives its workers
    env = environment(
        RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
        RAY_USAGE_STATS_ENABLED="0",
        RAY_AUTH_MODE=mode,
        RAY_AUTH_TOKEN_PATH=str(place / "token"),
    )
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={port}", "--num-cpus=1"]
    words = [*ray, "--include-dashboard=false", f"--temp-dir={place / 'ray'}"]
    subprocess.run(words, env=env, cwd=ROOT, check=True, capture_output=True, timeout=90)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        for process in [each for each in psutil.process_iter() if f"{place}/ray" in command_line(each)]:
            with suppress(psutil.NoSuchProcess):  # its parent's death may have been enough
                process.kill()


def test_a_node_lives_in_a_cluster_with_a_token_and_leaves_it_as_it_was(place: Path) -> None:
    with cluster(place, "token") as address:
        words = ("role=validator", "network.port=0", f"home={place / 'home'}", f"ray.address={address}")
        with launch(*words, env=environment(RAY_AUTH_TOKEN_PATH=str(place / "token"))) as node:
            node.wait_for(" is up")
        assert any(
            "gcs_server" in command_line(each) and str(place) in command_line(each) for each in psutil.process_iter()
        )


def test_an_open_cluster_is_refused(place: Path) -> None:
    with cluster(place, "disabled") as address:
        found = subprocess.run(
            [
                sys.executable,
                "-m",
                "lloom",
                "role=validator",
                "network.port=0",
                f"home={place / 'home'}",
                f"ray.address={address}",
            ],
            capture_output=True,
            text=True,
            env=environment(RAY_AUTH_TOKEN_PATH=str(place / "token")),
            cwd=ROOT,
            timeout=120,
            check=False,
        )
    assert found.returncode == 2
    assert "asks for no token" in found.stderr.splitlines()[-1]
