"""Where an actor finds itself: its node's settings, key and fellow actors. It decides nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from lloom.adapters.machine import keyagent, log, relay
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import Identity, NodeId
from lloom.core.settings import Settings


class FellowAway(RetryElsewhere):
    """Raised when another actor of this node does not answer: it is being restarted, or the node stops."""


class Office(Struct, frozen=True):
    """What all actors of one node have in common; holds names of secrets only."""

    settings: Settings
    node: NodeId
    key_socket: str
    provider_socket: str
    log_socket: str


class Place(Office, frozen=True):
    """Passed to every actor of a node as its first argument."""

    name: str
    """The actor's own name, in Ray and its dashboard too."""
    label: str = ""
    """Tells nodes of one process apart."""

    @property
    def title(self) -> str:
        """How the actor is called on the terminal."""
        return f"{self.label}: {self.name}" if self.label else self.name

    @property
    def namespace(self) -> str:
        """Ray's namespace of the node, so that one cluster can hold several nodes."""
        return self.node.hex()

    def identity(self) -> Identity:
        """The node's key; only where the node's own process runs on this machine."""
        return Identity(keyagent.fetch(self.key_socket))

    def provider_keys(self) -> dict[str, str]:
        """API keys of backends and URLs of chains' servers, by variable; none on another machine: that has its own."""
        if not Path(self.provider_socket).exists():
            return {}
        return msgspec.json.decode(keyagent.fetch(self.provider_socket), type=dict[str, str])

    def open_log(self) -> None:
        """Sends this process's log lines to the node's own terminal or file."""
        log.configure(self.settings.log, self.title, relay.sink(self.log_socket))

    def restarted(self) -> bool:
        """Whether Ray started this actor's process again after it was killed."""
        import ray

        return bool(ray.get_runtime_context().was_current_actor_reconstructed)

    async def ask(self, fellow: str, method: str, *arguments: Any, seconds: float) -> Any:
        """Calls `method` of another actor of this node; FellowAway if it does not answer within `seconds`."""
        import ray

        try:
            async with asyncio.timeout(seconds):
                handle = _handles.get((fellow, self.namespace)) or await self._find(fellow)
                return await getattr(handle, method).remote(*arguments)
        except (ValueError, TimeoutError, ray.exceptions.RayError) as error:
            if isinstance(error, ray.exceptions.RayTaskError):
                raise
            _handles.pop((fellow, self.namespace), None)  # the node may have put another actor in its place
            raise FellowAway(f"{fellow} does not answer", status=503, code="restarting", retry_after=2.0) from error

    async def _find(self, fellow: str) -> Any:
        """Asks the cluster, in a thread since that blocks."""
        import ray

        found = _handles[fellow, self.namespace] = await asyncio.to_thread(ray.get_actor, fellow, self.namespace)
        return found


_handles: Final[dict[tuple[str, str], Any]] = {}
"""Fellow actors of this process, by name and namespace: a handle outlives restarts of the actor."""


def worker_name(number: int) -> str:
    """The actor of a Worker."""
    return f"executor-worker-{number}"


def ledger_name(chain: str) -> str:
    """The accounting actor of a chain; of what nobody pays (empty)."""
    return f"accounting-{chain}" if chain else "accounting"
