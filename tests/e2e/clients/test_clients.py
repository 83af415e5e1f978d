"""Clients from registries against a real network: who changes the base URL changes nothing else.

Beside what `test_network` asks with the clients of the main environment. Each installs itself where its registry is reached.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import EMBEDDING, MOCK, MODEL, Network
from support import ROOT

from tests import environments

HERE = Path(__file__).parent
PYTHON = ROOT / ".venv-clients"
JAVASCRIPT = HERE / "javascript"

pytestmark = pytest.mark.timeout(300)

Run = Callable[..., str]


@pytest.fixture(scope="module")
def python() -> Path:
    """The programs of an environment with the clients in Python."""
    try:
        environments.install(PYTHON, HERE / "python" / "requirements.txt")
    except environments.NotInstalled as error:
        pytest.skip(f"the clients in Python cannot be installed: {error}")
    return PYTHON / "bin"


@pytest.fixture(scope="module")
def node() -> str:
    """Node.js, with the clients in JavaScript installed."""
    found = shutil.which("node")
    if found is None or shutil.which("npm") is None:
        pytest.skip("Node.js or npm is not here")
    try:
        environments.install_npm(JAVASCRIPT)
    except environments.NotInstalled as error:
        pytest.skip(f"the clients in JavaScript cannot be installed: {error}")
    return found


@pytest.fixture
def run(network: Network, tmp_path: Path) -> Run:
    """Runs a client as nobody in particular, told where the gateway is and what it serves; what it prints."""
    served = {"GATEWAY": network.gateway, "REAL": MODEL, "MOCK": MOCK, "EMBEDDING": EMBEDDING}

    def run(*command: str | Path, **env: str) -> str:
        found = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={"HOME": str(tmp_path), "LANG": "C.UTF-8", **served, **env},
            timeout=240,
            check=False,
        )
        assert found.returncode == 0, found.stdout + found.stderr
        return found.stdout

    return run


@pytest.mark.parametrize("script", ["openai_client.py", "anthropic_client.py", "langchain_client.py"])
def test_python(python: Path, run: Run, script: str) -> None:
    print(run(python / "python", HERE / "python" / script))


def test_openai_in_javascript(node: str, run: Run) -> None:
    print(run(node, "--test", JAVASCRIPT / "openai.test.js"))


def test_the_llm_command(python: Path, run: Run, network: Network, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- {{model_id: real, model_name: {MODEL}, api_base: {network.gateway}/v1}}\n"
        f"- {{model_id: mock, model_name: {MOCK}, api_base: {network.gateway}/v1, supports_tools: true, "
        "supports_schema: true}\n"
    )

    def llm(*words: str) -> str:
        return run(python / "llm", *words, LLM_USER_PATH=str(tmp_path))

    steady = ("-o", "temperature", "0", "-o", "max_tokens", "12")
    streamed = llm("-m", "real", *steady, "Explain gravity in one sentence.")
    assert "ravity" in streamed
    assert llm("-m", "real", *steady, "--no-stream", "Explain gravity in one sentence.") == streamed
    tool = "def add(a: int, b: int) -> int:\n    return a + b"
    assert llm("-m", "mock", "--functions", tool, 'call add {"a": 2, "b": 40}').strip() == "add gave: 42"
    assert '"size":' in llm("-m", "mock", "--schema", "name, size int", "A thing.")
