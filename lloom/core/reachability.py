"""How strangers reach the workers of one executor: at which ports, and under which address. It asks nobody and tries nothing."""

from __future__ import annotations

import ipaddress

from msgspec.structs import replace

from lloom.core.offer import Endpoint
from lloom.core.roster import Roster


class Reachability:
    """What is configured, and what validators found. An address that stands for all is one that we do not know yet."""

    def __init__(self, relay: str, host: str) -> None:
        """`relay`: as `network.relay`; `host`: the literal address that others are told."""
        self.hidden = relay == "only"
        self._configured = None if ipaddress.ip_address(host).is_unspecified else host
        self._host = self._configured
        # The ports at which strangers can dial our workers; None: all, as far as we know.
        self._ports: frozenset[int] | None = frozenset() if self.hidden or self._host is None else None

    @property
    def dialled(self) -> bool:
        """Whether strangers can dial this node, as far as we know."""
        return self._ports is None or bool(self._ports)

    def direct(self, port: int) -> bool:
        """Whether the worker at `port` needs no relay."""
        return self._ports is None or port in self._ports

    def found(self, reached: frozenset[int], ports: frozenset[int], host: str | None) -> bool:
        """Notes which of our `ports` were reached, and under which address; whether that is news."""
        before = self._host, ports if self._ports is None else self._ports
        self._host = self._configured or host or self._host
        reached = reached if self._host is not None else frozenset()
        self._ports = None if reached >= ports else reached
        return before != (self._host, reached)

    def ways(self, roster: Roster) -> tuple[Endpoint, ...]:
        """Where clients are sent. As long as no relay is held, and none is demanded, a direct way may be one after all."""
        ways = roster.endpoints(self._ports) or (() if self.hidden else roster.endpoints())
        return tuple(placed for each in ways if (placed := self._placed(each)) is not None)

    def _placed(self, endpoint: Endpoint) -> Endpoint | None:
        if not ipaddress.ip_address(endpoint.host).is_unspecified:
            return endpoint
        return None if self._host is None else replace(endpoint, host=self._host)
