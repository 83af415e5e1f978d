"""Has the router of this network forward ports to us (UPnP IGD), as long as we want it. It trusts no router with anything else.

Imported only where `network.upnp` is on. Whoever answers on the local network may claim to be the router: what it says is
bounded, and it is asked at its own address only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address, ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from async_upnp_client.client import UpnpRequester
from async_upnp_client.client_factory import UpnpFactory
from async_upnp_client.const import HttpRequest, HttpResponse
from async_upnp_client.exceptions import UpnpActionError, UpnpError
from async_upnp_client.profiles.igd import IgdDevice
from async_upnp_client.search import async_search
from loguru import logger

SEARCHED: Final = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
"""A second version answers to it, too."""
SSDP: Final = ("239.255.255.250", 1900)
SEARCH_SECONDS: Final = 2
ROUTERS: Final = 4
"""Answers that are looked at."""
HTTP_SECONDS: Final = 5.0
MAX_ANSWER: Final = 256 * 1024
"""Bytes; descriptions of routers have some kB."""
LEASE_SECONDS: Final = 3600
RETRY_SECONDS: Final = 300.0
GOODBYE_SECONDS: Final = 5.0
_ANY: Final = IPv4Address(0)
_PERMANENT_ONLY: Final = 725
"""Error of routers that know no leases (WANIPConnection:1, AddPortMapping)."""

Mapped = tuple[str, int]
"""TCP or UDP, and the port, the same inside and outside."""


@dataclass(frozen=True, slots=True)
class Router:
    """One that can be asked."""

    host: str
    device: IgdDevice


@asynccontextmanager
async def forwarded(
    source: str, ports: Collection[Mapped], target: tuple[str, int] = SSDP, retry_seconds: float = RETRY_SECONDS
) -> AsyncIterator[None]:
    """Has `ports` forwarded to the literal address `source` of this machine, renewed in time, and given back at the end.

    A node goes on without it: what the router refuses is logged. `target`: where routers are looked for.
    """
    mapper = _Mapper(IPv4Address(source), tuple(ports), target, retry_seconds)
    task = asyncio.create_task(mapper.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await mapper.give_back()


class _Mapper:
    def __init__(
        self, source: IPv4Address, ports: tuple[Mapped, ...], target: tuple[str, int], retry_seconds: float
    ) -> None:
        self._source = source
        self._ports = ports
        self._target = target
        self._retry_seconds = retry_seconds
        self._router: Router | None = None
        self._held: set[Mapped] = set()
        self._said = ""

    async def run(self) -> None:
        """Looks for a router, and asks it again before its leases end, for ever."""
        while True:
            try:
                problem = await self._renew()
            except Exception as error:  # noqa: BLE001 (whatever a router's answer does to the library)
                problem = f"the router's answer makes no sense ({type(error).__name__})"
            if problem is None:
                await asyncio.sleep(LEASE_SECONDS / 2)
                continue
            self._router = None
            self._say(f"The router does not open our ports: {problem}; open them by hand, or leave it to relays")
            await asyncio.sleep(self._retry_seconds)

    async def give_back(self) -> None:
        """Takes the mappings back, as far as that can be done in a moment: the leases end by themselves."""
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                for protocol, port in sorted(self._held if self._router else ()):
                    assert self._router is not None
                    await self._router.device.async_delete_port_mapping(_ANY, port, protocol)
        except (UpnpError, TimeoutError, ValueError) as error:
            logger.debug("the router did not take its mappings back: {}", type(error).__name__)

    async def _renew(self) -> str | None:
        """Has all ports mapped; why not, if not."""
        router = self._router = self._router or await _found(str(self._source), self._target)
        if router is None:
            return "there is none that speaks UPnP"
        refused = [each for each in self._ports if (await self._map(router.device, *each)) is False]
        if refused:
            names = ", ".join(f"{port} {protocol}" for protocol, port in refused)
            return f"{router.host} refuses {names} (another machine may have them)"
        outside = await router.device.async_get_external_ip_address()
        names = ", ".join(f"{port} {protocol}" for protocol, port in self._ports)
        self._say(f"The router {router.host} forwards {names} to us{_remark(outside)}", well=True)
        return None

    async def _map(self, device: IgdDevice, protocol: str, port: int) -> bool:
        """Whether the router did; UpnpError if it does not answer."""
        for seconds in (LEASE_SECONDS, 0):
            try:
                await device.async_add_port_mapping(
                    _ANY, port, protocol, port, self._source, True, "lloom", timedelta(seconds=seconds)
                )
            except UpnpActionError as error:
                if error.error_code != _PERMANENT_ONLY:
                    return False
                continue
            self._held.add((protocol, port))
            return True
        return False

    def _say(self, text: str, *, well: bool = False) -> None:
        """Once for each thing there is to say."""
        if text != self._said:
            self._said = text
            (logger.info if well else logger.warning)("{}", text)


async def _found(source: str, target: tuple[str, int]) -> Router | None:
    """The first router that answers and can map ports."""
    answers: list[tuple[str, str]] = []

    async def heard(headers: Mapping[str, Any]) -> None:
        host, location = str(headers.get("_host", "")), str(headers.get("location", ""))
        if len(answers) < ROUTERS and headers.get("st") == SEARCHED and _is_its_own(location, host):
            answers.append((host, location))

    try:
        await async_search(heard, SEARCH_SECONDS, SEARCHED, (source, 0), target)
    except OSError as error:
        logger.debug("routers cannot be looked for from {}: {}", source, error)
    for host, location in answers:
        try:
            device = await UpnpFactory(_Requester(host), non_strict=True).async_create_device(location)
        except UpnpError as error:
            logger.debug("what {} tells of itself makes no sense: {}", host, type(error).__name__)
            continue
        gateway = IgdDevice(device, None)
        if gateway._any_action(("WANIPC", "WANPPPC"), "AddPortMapping") is not None:
            return Router(host, gateway)
    return None


def _is_its_own(location: str, host: str) -> bool:
    """Whether a description lies where the answer came from, in this very network."""
    try:
        parts = urlsplit(location)
        return parts.scheme == "http" and parts.hostname == host and ip_address(host).is_private
    except ValueError:
        return False


def _remark(outside: str | None) -> str:
    """What the router's own address tells."""
    try:
        address = ip_address(outside or "")
    except ValueError:
        return ""
    if address.is_private or not address.is_global:
        return f", but is itself behind another one (its address is {address})"
    return f"; from outside we are at {address}"


class _Requester(UpnpRequester):
    """HTTP with one host, bounded in time and size, without redirects."""

    def __init__(self, host: str) -> None:
        self._host = host

    async def async_http_request(self, http_request: HttpRequest) -> HttpResponse:
        """UpnpError if it fails, or goes elsewhere."""
        if urlsplit(http_request.url).hostname != self._host:
            raise UpnpError("a router that points elsewhere")
        try:
            async with (
                asyncio.timeout(HTTP_SECONDS),
                aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
                session.request(
                    http_request.method,
                    http_request.url,
                    headers=http_request.headers,
                    data=http_request.body,
                    allow_redirects=False,
                ) as response,
            ):
                body = bytearray()
                while data := await response.content.read(MAX_ANSWER):
                    body += data
                    if len(body) > MAX_ANSWER:
                        raise UpnpError("a router's answer without end")
                return HttpResponse(response.status, dict(response.headers), body.decode(errors="replace"))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpnpError(f"the router does not answer ({type(error).__name__})") from error
