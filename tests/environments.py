"""Environments for what must not be in the main one: each from a list with hashes, made when it is first needed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

INSTALL_SECONDS = 900
LONGEST = 400
"""Characters of what an installer says of its failure."""


class NotInstalled(Exception):
    """Raised when an environment cannot be made; says why."""


def install(folder: Path, requirements: Path) -> None:
    """Makes the Python environment in `folder` if it is not there, or not of `requirements` (a list with hashes).

    NotInstalled if that fails.
    """
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    python = folder / "bin" / "python"
    packages = ["--require-hashes", "--compile-bytecode", "--python", str(python), "-r", str(requirements)]
    _make(
        folder / "stamp",
        requirements,
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", *packages],
    )


def install_npm(folder: Path) -> None:
    """Installs what `package-lock.json` in `folder` lists, into `node_modules` beside it. NotInstalled if that fails."""
    # Not `npm ci`: it refuses a lock file that leaves out what other platforms need.
    command = ["npm", "install", "--loglevel=error", "--no-save", "--prefix", str(folder)]
    _make(folder / "node_modules" / "stamp", folder / "package-lock.json", command)


def _make(stamp: Path, listed: Path, *commands: list[str]) -> None:
    wanted = hashlib.sha256(listed.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        except subprocess.CalledProcessError as error:
            raise NotInstalled(" ".join(error.stderr.split())[:LONGEST]) from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotInstalled(str(error)) from None
    stamp.write_text(wanted)
