"""scripts/deploy.sh hands over to `command=deploy`, and says what is missing instead of guessing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEY = "0x" + "5ec7e7" * 10 + "0123"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the script, a chain, and a Python that only tells how it was called."""
    for folder in ("scripts", "conf/chain", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "deploy.sh", tmp_path / "scripts")
    for chain in ("sepolia", "base", "anvil", "off"):
        (tmp_path / "conf" / "chain" / f"{chain}.yaml").touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$@"\necho "${LLOOM_PRIVATE_KEY-none}" > told\n')
    python.chmod(0o755)
    return tmp_path


def deploy(checkout: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], **variables}
    script = str(checkout / "scripts" / "deploy.sh")
    return subprocess.run([script, *arguments], env=environment, capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize(
    ("arguments", "rest"),
    [
        ((), "chain=sepolia"),
        (("base",), "chain=base"),
        (("base", "chain.base.max_fee=5"), "chain=base chain.base.max_fee=5"),
        (("output=json",), "chain=sepolia output=json"),
    ],
)
def test_it_hands_over_and_never_prints_the_key(checkout: Path, arguments: tuple[str, ...], rest: str) -> None:
    done = deploy(checkout, *arguments, PRIVATE_KEY=KEY)
    assert done.stdout == f"-m lloom role=client command=deploy {rest}\n"
    assert KEY not in done.stdout + done.stderr
    assert (checkout / "told").read_text().strip() == KEY


def test_the_key_of_lloom_wins(checkout: Path) -> None:
    deploy(checkout, PRIVATE_KEY="0x01", LLOOM_PRIVATE_KEY=KEY)
    assert (checkout / "told").read_text().strip() == KEY


def test_a_local_chain_has_keys_of_its_own(checkout: Path) -> None:
    assert deploy(checkout, "anvil").returncode == 0
    assert (checkout / "told").read_text().strip() == "none"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "PRIVATE_KEY"), (("nowhere",), "no chain nowhere"), (("off",), "no chain off"), (("../x",), "no chain ../x")],
)
def test_what_is_missing_is_said(checkout: Path, arguments: tuple[str, ...], said: str) -> None:
    done = deploy(checkout, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_lists_the_chains(checkout: Path) -> None:
    done = deploy(checkout, "--help")
    assert done.returncode == 0
    assert "    base\n    sepolia\n" in done.stdout
    assert "    off\n" not in done.stdout
