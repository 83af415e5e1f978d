"""Port forwarding against a router of our own on loopback: SSDP, description, SOAP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from loguru import logger

from lloom.adapters.machine import upnp

IGD = upnp.SEARCHED
WAN = "urn:schemas-upnp-org:service:WANIPConnection:1"
PORTS = (("TCP", 9001), ("UDP", 9001))


def argument(name: str, direction: str, variable: str) -> str:
    return (
        f"<argument><name>{name}</name><direction>{direction}</direction>"
        f"<relatedStateVariable>{variable}</relatedStateVariable></argument>"
    )


def action(name: str, *arguments: str) -> str:
    return f"<action><name>{name}</name><argumentList>{''.join(arguments)}</argumentList></action>"


NAMES = {
    "NewRemoteHost": "string",
    "NewExternalPort": "ui2",
    "NewProtocol": "string",
    "NewInternalPort": "ui2",
    "NewInternalClient": "string",
    "NewEnabled": "boolean",
    "NewPortMappingDescription": "string",
    "NewLeaseDuration": "ui4",
    "NewExternalIPAddress": "string",
}
ADD = list(NAMES)[:8]
SERVICE = (
    '<?xml version="1.0"?><scpd xmlns="urn:schemas-upnp-org:service-1-0"><specVersion><major>1</major><minor>0</minor>'
    "</specVersion><actionList>"
    + action("AddPortMapping", *(argument(name, "in", name) for name in ADD))
    + action("DeletePortMapping", *(argument(name, "in", name) for name in [ADD[0], ADD[1], ADD[2]]))
    + action("GetExternalIPAddress", argument("NewExternalIPAddress", "out", "NewExternalIPAddress"))
    + "</actionList><serviceStateTable>"
    + "".join(
        f'<stateVariable sendEvents="no"><name>{name}</name><dataType>{kind}</dataType></stateVariable>'
        for name, kind in NAMES.items()
    )
    + "</serviceStateTable></scpd>"
)


class Router(asyncio.DatagramProtocol):
    """A router; `refuses` is the error code of every mapping, `permanent` that of those with a lease."""

    def __init__(self, outside: str = "93.184.216.34", refuses: int | None = None, permanent: bool = False) -> None:
        self.outside, self.refuses, self.permanent = outside, refuses, permanent
        self.mapped: dict[tuple[str, str], str] = {}
        self.leases: list[str] = []
        self.location = ""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if b"M-SEARCH" in data:
            lines = ["HTTP/1.1 200 OK", "CACHE-CONTROL: max-age=120", f"ST: {IGD}", f"USN: uuid:1::{IGD}", "EXT:"]
            answer = "\r\n".join([*lines, f"LOCATION: {self.location}", "SERVER: test", "", ""])
            self.transport.sendto(answer.encode(), addr)

    async def describe(self, _request: web.Request) -> web.Response:
        inner = (
            f"<serviceList><service><serviceType>{WAN}</serviceType><serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId>"
            "<SCPDURL>/wan.xml</SCPDURL><controlURL>/control</controlURL><eventSubURL>/event</eventSubURL></service></serviceList>"
        )
        text = (
            '<?xml version="1.0"?><root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor>'
            f"</specVersion><device><deviceType>{IGD}</deviceType><friendlyName>r</friendlyName><manufacturer>m</manufacturer>"
            f"<modelName>n</modelName><UDN>uuid:1</UDN>{inner}</device></root>"
        )
        return web.Response(text=text, content_type="text/xml")

    async def service(self, _request: web.Request) -> web.Response:
        return web.Response(text=SERVICE, content_type="text/xml")

    async def control(self, request: web.Request) -> web.Response:
        said = dict(re.findall(r"<(New\w+)>([^<]*)<", await request.text()))
        what = request.headers["SOAPAction"].strip('"').partition("#")[2]
        answer = ""
        if what == "AddPortMapping":
            lease = said["NewLeaseDuration"]
            code = self.refuses or (725 if self.permanent and lease != "0" else None)
            if code is not None:
                return fault(code)
            self.leases.append(lease)
            self.mapped[said["NewProtocol"], said["NewExternalPort"]] = said["NewInternalClient"]
        elif what == "DeletePortMapping":
            del self.mapped[said["NewProtocol"], said["NewExternalPort"]]
        else:
            answer = f"<NewExternalIPAddress>{self.outside}</NewExternalIPAddress>"
        return soap(f'<u:{what}Response xmlns:u="{WAN}">{answer}</u:{what}Response>')


def soap(body: str, status: int = 200) -> web.Response:
    text = (
        '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
        f's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>{body}</s:Body></s:Envelope>'
    )
    return web.Response(text=text, content_type="text/xml", status=status)


def fault(code: int) -> web.Response:
    return soap(
        "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail>"
        f'<UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>{code}</errorCode>'
        "<errorDescription>no</errorDescription></UPnPError></detail></s:Fault>",
        500,
    )


@asynccontextmanager
async def running(router: Router, host: str = "127.0.0.1") -> AsyncIterator[tuple[str, int]]:
    """`router`, listening; where it is searched for. Its description claims to lie at `host`."""
    app = web.Application()
    app.router.add_get("/d.xml", router.describe)
    app.router.add_get("/wan.xml", router.service)
    app.router.add_post("/control", router.control)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    router.location = f"http://{host}:{runner.addresses[0][1]}/d.xml"
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: router, local_addr=("127.0.0.1", 0)
    )
    try:
        yield transport.get_extra_info("sockname")
    finally:
        transport.close()
        await runner.cleanup()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(upnp, "SEARCH_SECONDS", 0.3)
    lines: list[str] = []
    sink = logger.add(lines.append, format="{level} {message}", level="INFO")
    yield lines
    logger.remove(sink)


async def until(met: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not met():  # noqa: ASYNC110 (the log tells nobody)
            await asyncio.sleep(0.01)


async def test_ports_are_forwarded_for_a_while_and_given_back(said: list[str]) -> None:
    router = Router()
    async with running(router) as where:
        async with upnp.forwarded("127.0.0.1", PORTS, where):
            await until(lambda: said)
            assert router.mapped == {(protocol, str(port)): "127.0.0.1" for protocol, port in PORTS}
            assert router.leases == ["3600", "3600"]
            assert "forwards 9001 TCP, 9001 UDP to us; from outside we are at 93.184.216.34" in said[0]
        assert router.mapped == {}


async def test_a_router_that_knows_no_leases_gets_permanent_ones_that_are_taken_back_as_well(said: list[str]) -> None:
    router = Router(permanent=True)
    async with running(router) as where:
        async with upnp.forwarded("127.0.0.1", PORTS, where):
            await until(lambda: said)
            assert router.leases == ["0", "0"]
        assert router.mapped == {}


async def test_a_router_behind_another_one_is_told_of(said: list[str]) -> None:
    async with running(Router(outside="100.64.3.4")) as where, upnp.forwarded("127.0.0.1", PORTS, where):
        await until(lambda: said)
        assert "but is itself behind another one" in said[0]


async def test_a_refusal_is_said_once_and_tried_again(said: list[str]) -> None:
    router = Router(refuses=718)
    async with running(router) as where, upnp.forwarded("127.0.0.1", PORTS, where, retry_seconds=0.01):
        await until(lambda: said)
        assert said[0].startswith("WARNING")
        assert "refuses 9001 TCP, 9001 UDP" in said[0]
        router.refuses = None
        await until(lambda: router.mapped)
        await until(lambda: len(said) == 2)


async def test_where_there_is_no_router_it_is_said_and_the_node_goes_on(said: list[str]) -> None:
    async with upnp.forwarded("127.0.0.1", PORTS, ("127.0.0.1", 9)):
        await until(lambda: said)
        assert "there is none that speaks UPnP" in said[0]


async def test_a_router_that_points_elsewhere_is_not_followed(said: list[str]) -> None:
    router = Router()
    async with running(router, host="127.0.0.2") as where, upnp.forwarded("127.0.0.1", PORTS, where):
        await until(lambda: said)
        assert "there is none that speaks UPnP" in said[0]
        assert router.mapped == {}
