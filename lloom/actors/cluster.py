"""The Ray cluster a node's actors live in: its own, on loopback and with a token, or the operator's. It never starts an actor."""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

from lloom.core.errors import ConfigError
from lloom.core.settings import RaySettings

TOKEN_FILE: Final = "ray.token"  # noqa: S105 (a name, no token)
_CHECK_SECONDS: Final = 30

_ENVIRONMENT: Final = {
    # Without it GCS, raylet, workers and metrics listen on every interface.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Only this token stands between a stranger and code execution beside the private key.
    "RAY_AUTH_MODE": "token",
    # Workers run at nice 15 otherwise: they carry the requests.
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_COLOR_PREFIX": "0",
}


def prepare(settings: RaySettings, folder: Path, environ: MutableMapping[str, str]) -> None:
    """Sets what Ray reads from the environment; must run before Ray is imported."""
    environ.update(_ENVIRONMENT)
    if settings.address is None:
        token = folder / TOKEN_FILE
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        environ["RAY_AUTH_TOKEN_PATH"] = str(token)
        environ.pop("RAY_AUTH_TOKEN", None)
        environ.pop("RAY_ADDRESS", None)


def start(settings: RaySettings, folder: Path) -> str | None:
    """Starts the cluster, or joins the one at `settings.address`; the dashboard's URL, if there is one.

    Blocks for seconds: call it in a thread. ConfigError if the cluster cannot be had, or would take anybody's orders.
    """
    import ray

    try:
        if settings.address is not None:
            _refuse_open_cluster(settings.address)
            context = ray.init(address=settings.address, logging_level=logging.ERROR, log_to_driver=False)
        else:
            context = ray.init(
                include_dashboard=settings.dashboard,
                logging_level=logging.ERROR,
                log_to_driver=False,
                _temp_dir=str(folder / "ray"),
                object_store_memory=settings.object_store,
            )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise ConfigError(f"Ray could not be started: {str(error).strip().splitlines()[0]}") from error
    url = context.dashboard_url
    return f"http://{url}" if url else None


def stop() -> None:
    """Leaves the cluster; ends it if it is our own."""
    import ray

    ray.shutdown()


def _refuse_open_cluster(address: str) -> None:
    """ConfigError unless the cluster at `address` asks for a token."""
    if not os.environ.get("RAY_AUTH_TOKEN") and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        raise ConfigError(
            "ray.address names a cluster, but there is no token for it: set RAY_AUTH_TOKEN_PATH "
            "(a cluster without authentication would let anybody run code beside the node's key, so it is refused)"
        )
    if _answers_without_token(address):
        raise ConfigError(
            f"the Ray cluster at {address} asks for no token, so anybody could run code beside the node's key; "
            "start it with RAY_AUTH_MODE=token"
        )


def _answers_without_token(address: str) -> bool:
    """Whether the cluster answers a caller that shows no token (Ray's own health check, in a process without ours)."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")}
    where = [] if address == "auto" else ["--address", address]
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", *where]
    try:
        found = subprocess.run(  # noqa: S603 (Ray's own command; the address is an argument of its own)
            command,
            env=environ | {"RAY_AUTH_MODE": "disabled"},
            capture_output=True,
            timeout=_CHECK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"no Ray cluster answers at ray.address={address}") from error
    return found.returncode == 0
