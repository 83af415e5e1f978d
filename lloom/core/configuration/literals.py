"""Words of the configuration that have a form of their own: addresses and ids. ConfigError names the `key` of a wrong one."""

from __future__ import annotations

import ipaddress

from lloom.core.errors import ConfigError
from lloom.core.identity import parse_address
from lloom.core.offer import canonical


def check_address(key: str, text: str) -> None:
    """That `text` is an Ethereum address."""
    try:
        parse_address(text)
    except ValueError as error:
        raise ConfigError(f"{key}: {text[:64]!r} is no address: {error}") from error


def model_id(key: str, model: str) -> str:
    """The canonical form of a model's id."""
    try:
        return canonical(model)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error


def ip_address(key: str, host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """A literal address, no name of a host."""
    try:
        return ipaddress.ip_address(host)
    except ValueError as error:
        raise ConfigError(f"{key}: {host[:64]!r} is no IP address") from error
