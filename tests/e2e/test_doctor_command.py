"""`command=doctor` as a user runs it, Ray included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from lloom.__main__ import CONF


def test_the_first_validator_of_a_network_is_well_before_it_runs(tmp_path: Path) -> None:
    words = ["command=doctor", "role=validator", "network.port=0", "output=json", f"home={tmp_path}"]
    command = [sys.executable, "-m", "lloom", *words]
    done = subprocess.run(command, cwd=CONF.parent, env=os.environ, capture_output=True, text=True, timeout=100)
    told = json.loads(done.stdout)
    verdicts = {found["check"]: found["verdict"] for found in told["findings"]}
    assert (done.returncode, told["healthy"]) == (0, True), done
    assert {verdicts[check] for check in ("bootstrap", "clock", "DHT", "catalogue", "Ray")} == {"ok"}
    assert {verdicts[check] for check in ("key", "reachability")} == {"warning"}
    assert not (tmp_path / "validator" / "key").exists()
