"""The peers, in an environment of their own that is made at the first run: LiteLLM's proxy with one worker, and vllm-router.

Neither is tuned either way.
"""

from __future__ import annotations

import contextlib
import http.client
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests import environments
from tests.bench.systems import MODEL, NotStarted, System, process
from tests.e2e.support import ROOT, environment
from tests.free_ports import free_port

ENVIRONMENT = ROOT / ".venv-bench"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
START_SECONDS = 120

CONFIG = """
model_list:
  - model_name: {model}
    litellm_params:
      model: hosted_vllm/{model}
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: none
litellm_settings:
  telemetry: false
"""


def install() -> None:
    """Makes the environment if it is not there, or not of these requirements. NotStarted if that fails."""
    try:
        environments.install(ENVIRONMENT, REQUIREMENTS)
    except environments.NotInstalled as error:
        raise NotStarted(f"the peers cannot be installed (--no-peers leaves them out): {error}") from None


@contextmanager
def proxy(upstream: int, folder: Path) -> Iterator[System]:
    """The proxy before `upstream` (a port), its files in `folder`."""
    key, port, config, log = f"sk-{secrets.token_hex(32)}", free_port(), folder / "config.yaml", folder / "log"
    config.write_text(CONFIG.format(model=MODEL, upstream=upstream))
    command = [str(_binary("litellm")), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    settings = {
        "HOME": str(folder),
        "LITELLM_MASTER_KEY": key,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
    }
    options = {"env": environment(**settings), "cwd": folder, "stderr": subprocess.STDOUT}
    command += ["--num_workers", "1", "--telemetry", "False"]
    with log.open("wb") as output, process(command, stdout=output, **options) as popen:
        if not _answers(port, "/health/liveliness", popen):
            raise NotStarted(f"LiteLLM's proxy does not start: {log.read_text(errors='replace')[-2000:]}")
        yield System("LiteLLM proxy", port, MODEL, {"proxy": lambda: psutil.Process(popen.pid)}, key)


@contextmanager
def router(upstream: int, folder: Path) -> Iterator[System]:
    """vllm-router before `upstream` (a port), its files in `folder`. It is Rust: as fast as forwarding gets."""
    port, log = free_port(), folder / "router.log"
    command = [str(_binary("vllm-router")), "--worker-urls", f"http://127.0.0.1:{upstream}", "--policy", "round_robin"]
    command += [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--prometheus-port",
        str(free_port()),
        "--log-level",
        "error",
    ]
    options = {"env": environment(HOME=str(folder)), "cwd": folder, "stderr": subprocess.STDOUT}
    with log.open("wb") as output, process(command, stdout=output, **options) as popen:
        if not _answers(port, "/health", popen):
            raise NotStarted(f"vllm-router does not start: {log.read_text(errors='replace')[-2000:]}")
        yield System("vllm-router", port, MODEL, {"router": lambda: psutil.Process(popen.pid)})


def _answers(port: int, path: str, popen: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and popen.poll() is None:
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(link):
            link.request("GET", path)
            if link.getresponse().status == http.client.OK:
                return True
        time.sleep(0.25)
    return False


def _binary(name: str) -> Path:
    return ENVIRONMENT / "bin" / name
