"""Nodes that find each other by multicast, on the loopback interface."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import pytest
from zeroconf.asyncio import AsyncServiceInfo

from lloom.adapters.machine import mdns
from lloom.adapters.machine.mdns import SERVICE, Announcement, announced, hints
from lloom.core.identity import Identity

OWN = Announcement(Identity.generate().address, "home", "127.0.0.1", 9000)
OTHER = Announcement(Identity.generate().address, "home", "127.0.0.1", 9001)
HIDDEN = Announcement(Identity.generate().address, "home", "127.0.0.1", None)


async def test_nodes_of_one_network_find_each_other_and_not_those_who_hide() -> None:
    heard: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
    back: asyncio.Queue[tuple[str, int]] = asyncio.Queue()

    async with (
        asyncio.timeout(20),
        announced(HIDDEN, "127.0.0.1", lambda *_: None),
        announced(OWN, "127.0.0.1", lambda host, port: heard.put_nowait((host, port))),
        announced(OTHER, "127.0.0.1", lambda host, port: back.put_nowait((host, port))),
    ):
        assert await heard.get() == ("127.0.0.1", 9001)
        assert await back.get() == ("127.0.0.1", 9000)
        assert heard.empty()
        assert back.empty()


def info(**changes: Any) -> AsyncServiceInfo:
    fields: dict[str, Any] = {
        "port": 9001,
        "addresses": [ipaddress.ip_address("192.0.2.7").packed],
        "properties": {"network": "home", "id": OTHER.node.hex()},
        **changes,
    }
    return AsyncServiceInfo(SERVICE, f"x.{SERVICE}", **fields)


def test_what_makes_sense_is_a_hint() -> None:
    assert hints(info(), OWN) == [("192.0.2.7", 9001)]


@pytest.mark.parametrize(
    "changes",
    [
        {"port": 0},
        {"port": 65_536},
        {"port": 70_000},
        {"addresses": [b"\xe0\x00\x00\xfb"]},
        {"addresses": [bytes(4)]},
        {"addresses": [ipaddress.ip_address("2001:db8::1").packed]},
        {"properties": {"network": "elsewhere", "id": OTHER.node.hex()}},
        {"properties": {"network": "home", "id": OWN.node.hex()}},
        {"properties": {"network": "home"}},
        {"properties": {}},
    ],
    ids=str,
)
def test_what_makes_none_is_not(changes: dict[str, Any]) -> None:
    assert hints(info(**changes), OWN) == []


def test_one_name_with_many_addresses_is_no_flood() -> None:
    many = [ipaddress.ip_address(f"192.0.2.{number}").packed for number in range(1, 200)]
    assert len(hints(info(addresses=many), OWN)) <= mdns.MAX_ADDRESSES


async def test_an_interface_that_is_not_here_does_not_stop_the_node() -> None:
    async with announced(OWN, "192.0.2.200", lambda *_: None):
        pass
