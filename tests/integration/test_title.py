"""What other users of the machine see of a command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (
    "import sys; from lloom.adapters.machine import title; title.show('lloom'); print(flush=True); sys.stdin.read()"
)


def test_a_prompt_leaves_the_command_line() -> None:
    words = [sys.executable, "-c", PROGRAM, "prompt=a secret 😀 question"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert psutil.Process(process.pid).cmdline()[0] == "lloom"
        assert "secret" not in " ".join(psutil.Process(process.pid).cmdline())
