"""Nodes of one local network find each other by multicast DNS (RFC 6762, 6763). What is heard is a hint, and proves nothing.

Imported only where `network.mdns` is on. Who answers at a hinted address still has to prove its id to the DHT.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from loguru import logger
from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from lloom.adapters.machine.interface import own as own_address
from lloom.core.identity import NodeId

SERVICE: Final = "_lloom._udp.local."
TTL_SECONDS: Final = 120
"""Of host records (RFC 6762, section 10)."""
ASK_MILLISECONDS: Final = 2000
"""For the address of somebody whose name was heard."""
QUESTIONS: Final = 16
"""Names being asked about at once; more than these belong to no honest network."""
MAX_ADDRESSES: Final = 4
GOODBYE_SECONDS: Final = 2.0

Hint = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is told of this node. `host`: a literal address; `port`: UDP, None for a node that nobody should greet."""

    node: NodeId
    network: str
    host: str
    port: int | None


@asynccontextmanager
async def announced(own: Announcement, interface: str, hint: Hint) -> AsyncIterator[None]:
    """Tells others of `own` and `hint` of others, on the interface of that literal IPv4 address, until it is left.

    A node goes on without it: what the network refuses is logged.
    """
    try:
        if not own_address(interface):  # the library would leak its socket
            raise OSError(f"{interface} is no address of this machine")
        responder = AsyncZeroconf(interfaces=[interface], ip_version=IPVersion.V4Only)
    except (OSError, RuntimeError) as error:
        logger.warning("Nodes on this local network are not looked for, multicast does not work here: {}", error)
        yield
        return
    listener = _Listener(own, hint)
    browser = AsyncServiceBrowser(responder.zeroconf, SERVICE, handlers=[listener.heard])
    try:
        if own.port is not None:
            await responder.async_register_service(_info(own, own.port), allow_name_change=True)
        yield
    finally:
        await listener.close()
        await browser.async_cancel()
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                await responder.async_unregister_all_services()
        except TimeoutError:
            logger.debug("multicast DNS took no goodbye")
        await responder.async_close()


class _Listener:
    """Asks for the addresses of those whose names are heard."""

    def __init__(self, own: Announcement, hint: Hint) -> None:
        self._own = own
        self._hint = hint
        self._asking: dict[str, asyncio.Task[None]] = {}

    def heard(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        """A name has come, changed, or gone."""
        gone = state_change is ServiceStateChange.Removed
        if gone or name in self._asking or len(self._asking) >= QUESTIONS or service_type != SERVICE:
            return
        task = self._asking[name] = asyncio.ensure_future(self._ask(zeroconf, name))
        task.add_done_callback(lambda _: self._asking.pop(name, None))

    async def close(self) -> None:
        """Gives up all questions."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, zeroconf: Zeroconf, name: str) -> None:
        try:
            info = AsyncServiceInfo(SERVICE, name)
            if await info.async_request(zeroconf, ASK_MILLISECONDS):
                for host, port in hints(info, self._own):
                    self._hint(host, port)
        except Exception as error:  # noqa: BLE001 (whatever a stranger's packet does to the library)
            logger.debug("what {!r} tells by multicast makes no sense: {}", name[:64], type(error).__name__)


def hints(info: AsyncServiceInfo, own: Announcement) -> list[tuple[str, int]]:
    """Where the node of `info` may be greeted: nowhere if it is ourselves, of another network, or makes no sense."""
    said = info.properties
    if said.get(b"network") != _short(own.network) or said.get(b"id") in (None, own.node.hex().encode()):
        return []
    port = info.port
    if port is None or not 1 <= port <= 65_535:
        return []
    found = (ipaddress.ip_address(packed) for packed in info.addresses[:MAX_ADDRESSES] if len(packed) == 4)
    return [(str(address), port) for address in found if not address.is_multicast and not address.is_unspecified]


def _info(own: Announcement, port: int) -> AsyncServiceInfo:
    """Our own entry. The name tells nothing but the id, whose first half makes it unique enough for a label of DNS."""
    return AsyncServiceInfo(
        SERVICE,
        f"{own.node.hex()[:24]}.{SERVICE}",
        port=port,
        addresses=[ipaddress.ip_address(own.host).packed],
        properties={"network": _short(own.network).decode(), "id": own.node.hex()},
        server=f"lloom-{own.node.hex()[:24]}.local.",
        host_ttl=TTL_SECONDS,
        other_ttl=TTL_SECONDS,
    )


def _short(network: str) -> bytes:
    """The network's name as it fits into a TXT record (255 bytes with its key)."""
    return network.encode()[:200]
