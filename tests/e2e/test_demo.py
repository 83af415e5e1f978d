"""The main job in one command."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from support import ROOT, Process, environment, gone

from tests.free_ports import free_port

pytestmark = pytest.mark.timeout(240)


def test_the_demo_answers_shows_its_actors_and_stays_until_ctrl_c(tmp_path: Path) -> None:
    process = Process.start("role=demo", f"gateway.port={free_port()}", env=environment(LLOOM_HOME=str(tmp_path)))
    endpoint = process.wait_for("OpenAI endpoint:")
    dashboard = process.wait_for("Ray dashboard:")
    process.wait_for("Stop it:")
    assert re.search(r"http://127\.0\.0\.1:\d+/v1", endpoint)
    found = re.search(r"(http://\S+) .*cat (\S+)\)", dashboard)
    assert found
    request = urllib.request.Request(
        f"{found[1]}/api/v0/actors?detail=0", headers={"Authorization": f"Bearer {Path(found[2]).read_text()}"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        actors = answer.read().decode()
    for name in ("validator", "executor", "executor-worker-0", "client", "accounting"):
        assert f'"name": "{name}"' in actors
    family = process.family()
    assert process.stop() == 0
    process.drain()
    assert process.output.strip()
    assert not gone(family)


def test_the_demo_can_end_after_its_answer(tmp_path: Path) -> None:
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "lloom",
            "role=demo",
            "demo.stay=false",
            "ray.dashboard=false",
            f"gateway.port={free_port()}",
        ],
        capture_output=True,
        text=True,
        env=environment(LLOOM_HOME=str(tmp_path)),
        cwd=ROOT,
        timeout=200,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert "ravity" in found.stdout
    if "Nobody is paid" not in found.stderr:
        charged, settled = (re.search(rf"  {word} +([\d.]+) ETH, by ", found.stderr) for word in ("charged", "settled"))
        assert charged
        assert settled
        assert charged[1] == settled[1]
