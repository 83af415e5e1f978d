"""The node's key, folder, disk and limits on this computer. It makes no key, and never shows one."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

from lloom.adapters.machine import home, keystore
from lloom.core.errors import ConfigError
from lloom.core.finding import Finding, ok, problem, warning
from lloom.core.identity import Identity, checksum
from lloom.core.settings import Settings

DISK_BYTES: Final = 1 << 30
"""Ray warns below 5 % of the disk; journals and logs of a busy node grow by some MB a day."""
FILES: Final = 4096
"""Open files: every connection is one, and Ray takes some hundreds."""


def key(settings: Settings, environ: MutableMapping[str, str]) -> tuple[Finding, Identity | None]:
    """Whether there is a key that opens; the identity, if so. Takes key and passphrase out of `environ`."""
    chosen = settings.identity
    path = Path(chosen.path)
    if chosen.source == "file" and not environ.get(chosen.key_env) and not path.exists():
        keystore.forget(chosen, environ)
        how = f"command=keygen role={settings.role} makes an encrypted one; else the first start makes a raw one"
        return warning("key", f"there is none at {path} yet", how), None
    where = chosen.key_env if environ.get(chosen.key_env) else str(path)
    try:
        identity = keystore.load(chosen, environ)
    except ConfigError as error:
        return problem("key", str(error), "mend it as said, or name another one with identity.path=…"), None
    return ok("key", f"{checksum(identity.address)}, from {where}"), identity


def folder(settings: Settings) -> Finding:
    """Whether the role's folder can be written to, and has room."""
    try:
        path = home.folder(settings)
    except ConfigError as error:
        return problem("folder", str(error), "choose a folder that you may write to with home=…")
    if not os.access(path, os.W_OK | os.X_OK):
        return problem(
            "folder", f"{path} cannot be written to", f"chown it to this user, or choose another with home=…: {path}"
        )
    free = shutil.disk_usage(path).free
    if free < DISK_BYTES:
        return warning(
            "folder", f"{path} has only {free >> 20} MB left", "make room, or choose another disk with home=…"
        )
    return ok("folder", f"{path}, {free >> 30} GB free")


def files() -> Finding:
    """Whether this user may open enough files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES:
        return warning(
            "open files", f"at most {soft}, where a busy node needs {FILES}", f"ulimit -n {min(hard, 65536)}"
        )
    return ok("open files", f"at most {soft}")
