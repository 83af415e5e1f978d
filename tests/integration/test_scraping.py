"""The numbers of a node over HTTP."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request

import pytest

from lloom.adapters.scraping import scraped
from lloom.core.errors import ConfigError


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return str(answer.read().decode())


async def test_numbers_are_read_when_they_are_asked_for_and_nothing_else_is_there() -> None:
    values = {"dht_peers": 1.0}
    async with scraped(lambda: values, "127.0.0.1", 0) as url:
        assert "lloom_dht_peers 1.0" in await asyncio.to_thread(get, url)
        values["dht_peers"] = 2.0
        assert "lloom_dht_peers 2.0" in await asyncio.to_thread(get, url)
        with pytest.raises(urllib.error.HTTPError):
            await asyncio.to_thread(get, url.removesuffix("metrics"))


async def test_a_port_that_is_taken_is_a_mistake_of_the_configuration() -> None:
    async with scraped(dict, "127.0.0.1", 0) as url:
        port = int(url.rpartition(":")[2].partition("/")[0])
        with pytest.raises(ConfigError, match=r"metrics\.port: cannot listen on 127\.0\.0\.1"):
            await scraped(dict, "127.0.0.1", port).__aenter__()
