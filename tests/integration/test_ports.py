"""Ports that are free, and ports that are not."""

from __future__ import annotations

import socket

import pytest

from lloom.adapters.machine import ports
from lloom.core.errors import ConfigError


def test_a_taken_port_is_refused_with_the_setting_that_changes_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} \(TCP\).*network\.port="):
            ports.first_port("127.0.0.1", port, ports.executor(1), "network.port")


def test_the_port_of_a_further_worker_counts_too() -> None:
    first = ports.first_port("127.0.0.1", 0, ports.executor(2), "network.port")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 1))
        taken.listen()
        with pytest.raises(ConfigError, match=str(first + 1)):
            ports.first_port("127.0.0.1", first, ports.executor(2), "network.port")
        assert ports.first_port("127.0.0.1", first, ports.executor(1), "network.port") == first


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1"):
        ports.first_port("192.0.2.1", 9000, ports.DHT, "network.port")


def test_the_last_port_has_no_successor() -> None:
    with pytest.raises(ConfigError, match="no such port"):
        ports.first_port("127.0.0.1", 65_535, ports.executor(2), "network.port")
