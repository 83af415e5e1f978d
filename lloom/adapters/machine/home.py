"""A role's own folder on disk: one node at a time, and where its running gateway is found. It holds no key itself."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from lloom.core.errors import ConfigError
from lloom.core.settings import Settings


class GatewayNote(Struct, frozen=True):
    """What a running client node leaves for the user's other commands."""

    url: str
    node: str
    pid: int
    key: str
    """To this gateway, for its own user, as long as it runs; empty if it is open to this machine."""


def folder(settings: Settings) -> Path:
    """The role's folder, made if need be, for the user only; ConfigError if it cannot be."""
    path = Path(settings.home).expanduser() / settings.role
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make {path} ({error.strerror}); choose another place with home=…") from error
    return path


@contextlib.contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Holds the role's folder; ConfigError if another process does."""
    path = folder(settings) / "lock"
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ConfigError(
                f"this {settings.role} already runs (process {lock.read(16).strip() or '?'}); "
                "stop it, or give the second one a folder and key of its own with home=…"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
        lock.truncate(0)


def running(settings: Settings) -> int | None:
    """The process of the node that holds the role's folder; None if there is none, 0 if it does not say."""
    with (folder(settings) / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read(16).strip()
            return int(pid) if pid.isdigit() else 0
    return None


@contextlib.contextmanager
def announced(settings: Settings, note: GatewayNote) -> Iterator[None]:
    """Leaves `note` as long as the gateway runs."""
    path = _note(settings)
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(note))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def running_gateway(settings: Settings) -> GatewayNote | None:
    """The note of the user's own running client node; None if there is none, or what stands there is no note."""
    try:
        return msgspec.json.decode(_note(settings).read_bytes(), type=GatewayNote)
    except (OSError, msgspec.DecodeError):
        return None


def _note(settings: Settings) -> Path:
    return folder(settings) / "gateway.json"
