"""Coding agents from a registry do a task through a real network: they write a file and run a command, as the mock has them do.

`./scripts/just agents` installs them (1.2 GB) and runs this; an agent that is not installed is skipped. They get nowhere but
to the gateway: any other address goes to a proxy that is not there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from conftest import MOCK, Network

PROGRAMS = Path(__file__).parent / "agents" / "node_modules" / ".bin"
NOWHERE = "http://127.0.0.1:9"

pytestmark = pytest.mark.timeout(200)


class Agent:
    """An agent in a folder of its own, with a home of its own beside it."""

    def __init__(self, name: str, folder: Path) -> None:
        found = shutil.which(name, path=f"{PROGRAMS}:{os.environ['PATH']}")
        if found is None:
            pytest.skip(f"{name} is not installed: ./scripts/just agents")
        self._program = found
        self.home, self.work = folder / "home", folder / "work"
        self.home.mkdir()
        self.work.mkdir()

    def do(self, words: list[str], task: str, **env: str) -> str:
        """What it prints to its user, when its task has come by standard input."""
        # Their sockets need a short path.
        with tempfile.TemporaryDirectory(prefix="la-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
            found = subprocess.run(
                [self._program, *words],
                input=task,
                capture_output=True,
                text=True,
                cwd=self.work,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(self.home),
                    "TMPDIR": scratch,
                    "LANG": "C.UTF-8",
                    "HTTP_PROXY": NOWHERE,
                    "HTTPS_PROXY": NOWHERE,
                    "NO_PROXY": "127.0.0.1",
                    **env,
                },
                timeout=150,
                check=False,
            )
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stdout


def task(*calls: tuple[str, dict[str, str]]) -> str:
    lines = [f"call {name} {json.dumps(arguments)}" for name, arguments in calls]
    return "\n".join(["Do this:", *lines])


def test_codex_does_a_task(network: Network, tmp_path: Path) -> None:
    agent = Agent("codex", tmp_path)
    (agent.home / "config.toml").write_text(f"""
model = "{MOCK}"
model_provider = "lloom"
model_context_window = 200000
web_search = "disabled"
check_for_update_on_startup = false
analytics.enabled = false
features = {{ apps = false, plugins = false, remote_plugin = false }}
model_providers.lloom = {{ name = "Lloom", base_url = "{network.gateway}/v1", wire_api = "responses" }}
""")
    # Its own sandbox needs more of the machine than CI may give.
    words = ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "-"]
    calls = task(
        ("exec_command", {"cmd": "echo written by an agent > note.txt"}),
        ("exec_command", {"cmd": "tr a-z A-Z < note.txt"}),
    )
    said = agent.do(words, calls, CODEX_HOME=str(agent.home))
    assert "WRITTEN BY AN AGENT" in said
    assert (agent.work / "note.txt").read_text() == "written by an agent\n"


def test_claude_code_does_a_task(network: Network, tmp_path: Path) -> None:
    agent = Agent("claude", tmp_path)
    note = agent.work / "note.txt"
    calls = task(
        ("Write", {"file_path": str(note), "content": "written by an agent\n"}),
        ("Bash", {"command": "tr a-z A-Z < note.txt", "description": "capitals"}),
    )
    said = agent.do(
        ["-p", "--allowedTools", "Write,Bash"],
        calls,
        ANTHROPIC_BASE_URL=network.gateway,
        ANTHROPIC_AUTH_TOKEN="unused",
        ANTHROPIC_MODEL=MOCK,
        ANTHROPIC_DEFAULT_HAIKU_MODEL=MOCK,
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
        DISABLE_AUTOUPDATER="1",
    )
    assert said.strip() == "Bash gave: WRITTEN BY AN AGENT"
    assert note.read_text() == "written by an agent\n"


def test_opencode_does_a_task(network: Network, tmp_path: Path) -> None:
    agent = Agent("opencode", tmp_path)
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": f"{network.gateway}/v1", "apiKey": "unused"},
        "models": {MOCK: {"limit": {"context": 200000, "output": 4096}}},
    }
    chosen = {"model": f"lloom/{MOCK}", "small_model": f"lloom/{MOCK}", "autoupdate": False, "share": "disabled"}
    (agent.work / "opencode.json").write_text(json.dumps({"provider": {"lloom": provider}, **chosen}))
    note = agent.work / "note.txt"
    calls = task(
        ("write", {"filePath": str(note), "content": "written by an agent\n"}),
        ("bash", {"command": "tr a-z A-Z < note.txt", "description": "capitals"}),
    )
    said = agent.do(
        ["run"],
        calls,
        OPENCODE_DISABLE_DEFAULT_PLUGINS="1",
        OPENCODE_DISABLE_MODELS_FETCH="1",
        OPENCODE_DISABLE_LSP_DOWNLOAD="1",
        npm_config_offline="true",
    )
    assert "bash gave: WRITTEN BY AN AGENT" in said
    assert note.read_text() == "written by an agent\n"
