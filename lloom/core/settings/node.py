"""A node by itself: its key, its cluster, its log and its numbers. It holds names of secrets, never secrets."""

from __future__ import annotations

from typing import Literal

from lloom.core.settings.base import Count, Group, Port, Seconds


class IdentitySettings(Group, frozen=True):
    """Where the node's key comes from."""

    source: Literal["file", "env"]
    path: str
    """Keystore (JSON) or raw-hex file; made at the first start if it is not there."""
    key_env: str
    """Name of the variable that holds the key; if it is set, it wins over the file."""
    passphrase_env: str
    """Name of the variable that unlocks an encrypted keystore."""


class KeygenSettings(Group, frozen=True):
    """What command=keygen does."""

    encrypted: bool
    """A keystore that needs a passphrase at every start; else raw hex."""
    overwrite: bool


class RaySettings(Group, frozen=True):
    address: str | None
    """None: a cluster of the node's own, on loopback. Else a cluster with authentication."""
    dashboard: bool
    start_seconds: Seconds
    """How long the cluster may take to start."""
    restarts: Count
    """How often in a row an actor whose work fails is started again before the node gives up."""
    object_store: Count
    """Bytes of Ray's object store; no request crosses it, so it is small."""


class MetricsSettings(Group, frozen=True):
    """Numbers of an executor or a validator for Prometheus; a client's are at its gateway."""

    host: str
    """Loopback."""
    port: Port | None
    """None: they are not shown. 0: any free port."""


class LogSettings(Group, frozen=True):
    level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"]
    format: Literal["human", "json"]
    """What standard error gets."""
    file: str | None
    """Gets the same as JSON, one file for each process: its name comes before the suffix."""
    file_bytes: Count
    """A file of this size is set aside."""
    files: Count
    """That many of those are kept."""
