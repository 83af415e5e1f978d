"""`python -m lloom` as a user meets it: exit status, one sentence on standard error, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECRET = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"

Lloom = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def lloom(tmp_path: Path) -> Lloom:
    """Runs the command in an empty folder."""
    folder = tmp_path / "work"
    folder.mkdir()

    def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("LLOOM_", "HYDRA_"))}
        done = subprocess.run(
            [sys.executable, "-m", "lloom", *words],
            cwd=folder,
            env={**clean, "PYTHONPATH": str(ROOT), "LLOOM_HOME": str(tmp_path / "home"), **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert list(folder.iterdir()) == [], "something was left behind"
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "role=client, executor, validator or demo"),
        (["role=boss"], "role=boss: there is no such choice; there are client, demo, executor and validator"),
        (["role=client", "netwrk.port=1"], "netwrk.port: there is no such setting; did you mean network.port"),
        (["role=client", "+network.prt=1"], "network.prt: there is no such setting; did you mean network.port"),
        (["role=client", "network.port=high"], "network.port: expected a whole number, got text"),
        (["role=client", "command=run"], "command: 'run' is no choice; there are serve"),
        (["role=executor", "llm=[gpt]"], "llm=gpt: there is no such choice; there are anthropic"),
        (["role=client", "llm.openai.parallel=1"], "choose it with llm=[openai]"),
        (["role=validator", "network=public"], "network.advertise"),
        (["role=executor", "prompt=hello"], "only a client asks"),
        (["role=client", "prompt=hello", "world"], "'world' is no setting=value"),
        (["role=client", "network.host='"], "network.host='"),
        (["role=client", "--multirun"], "--multirun"),
        (["--config-dir", "nowhere", "role=client"], "nowhere"),
        (["role=client", "identity=env", "command=models"], "LLOOM_PRIVATE_KEY is not set"),
    ],
)
def test_a_wrong_configuration_is_one_sentence_and_status_2(lloom: Lloom, words: list[str], told: str) -> None:
    done = lloom(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("lloom: ")
    assert done.stderr.count("\n") == 1
    assert told in done.stderr


def test_help_needs_no_role_and_names_groups_and_choices(lloom: Lloom) -> None:
    done = lloom("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "python -m lloom role=demo" in done.stdout
    assert "role: client, demo, executor, validator" in done.stdout
    assert "llm: anthropic" in done.stdout


def test_the_configuration_can_be_shown_and_holds_no_secret(lloom: Lloom) -> None:
    secrets = dict.fromkeys(("LLOOM_PRIVATE_KEY", "LLOOM_PASSPHRASE", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"), SECRET)
    for words in (
        ["--cfg", "job"],
        ["role=executor", "llm=openai,anthropic", "--cfg", "job", "--resolve"],
        ["--cfg", "all"],
    ):
        done = lloom(*words, **secrets)
        assert done.returncode == 0
        assert "key_env: LLOOM_PRIVATE_KEY" in done.stdout
        assert SECRET not in done.stdout + done.stderr


def test_a_key_is_made_once_and_never_shown(lloom: Lloom, tmp_path: Path) -> None:
    done = lloom("command=keygen", "role=executor", "output=json", LLOOM_PASSPHRASE="sesame")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["path"] == str(tmp_path / "home" / "executor" / "key")
    assert made["address"].lower().removeprefix("0x") == json.loads(Path(made["path"]).read_text())["address"].lower()
    again = lloom("command=keygen", "role=executor", LLOOM_PASSPHRASE="sesame")
    assert again.returncode == 2
    assert "keygen.overwrite=true" in again.stderr


def test_a_raw_key_goes_where_it_is_told(lloom: Lloom, tmp_path: Path) -> None:
    path = tmp_path / "kéys, and 'more'"
    done = lloom("command=keygen", f"identity.path={path}", "keygen.encrypted=false")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip("\n").endswith(str(path))
    assert path.read_text().strip() not in done.stdout


def test_the_version_is_lloom_s_own(lloom: Lloom) -> None:
    assert lloom("--version").stdout.startswith("lloom ")


def test_a_file_of_the_users_own_is_found_and_its_faults_are_told(lloom: Lloom, tmp_path: Path) -> None:
    own = tmp_path / "conf" / "llm"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text(
        "# @package llm.mine\ndefaults: [mock@_here_, _self_]\nmodels: {my-model: {context: 1000}}\n"
    )
    (own / "broken.yaml").write_text("a: [1\nb: 2\n")
    words = ["--config-dir", str(own.parent), "role=executor", "--cfg", "job"]
    assert "mine:" in lloom(*words, "llm=mine").stdout
    broken = lloom(*words, "llm=broken")
    assert broken.returncode == 2
    assert "broken.yaml, line 2" in broken.stderr


def complete(lloom: Lloom, line: str) -> list[str]:
    """What bash would offer at the end of `line`."""
    script = lloom("--shell-completion", "install=bash").stdout
    call = "COMP_LINE=$1; COMP_POINT=${#COMP_LINE}; _lloom_complete; printf '%s\\n' \"${COMPREPLY[@]}\""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{call}", "bash", line],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        cwd=ROOT,
        timeout=60,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("python -m lloom rol", ["role="]),
        ("python -m lloom role=ex", ["executor"]),
        ("python -m lloom role=executor network=l", ["lan", "local"]),
        ("python -m lloom network.adv", ["network.advertise="]),
        ("python -m something rol", []),
    ],
)
def test_bash_completes_groups_choices_and_settings(lloom: Lloom, line: str, offered: list[str]) -> None:
    assert complete(lloom, line) == offered
