"""Chains, and the commands that need one: whether they go together. It asks no chain."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from lloom.core.configuration.literals import check_address
from lloom.core.configuration.wording import listed
from lloom.core.errors import ConfigError
from lloom.core.payment import units
from lloom.core.settings import Chain, Settings

MONEY: Final[dict[str, tuple[str, ...]]] = {
    "deploy": ("client", "executor", "validator"),
    "deposit": ("client", "validator"),
    "withdraw": ("client", "executor", "validator"),
    "settle": ("executor",),
}
"""Commands that talk to a chain, and nobody else; and whose they are."""


def check(settings: Settings) -> None:
    """ConfigError for chains that are none, and for commands that need another one."""
    for name, chain in settings.chain.items():
        _check_chain(name, chain)
    owners: dict[int, str] = {}
    for name, chain in settings.chain.items():
        if (other := owners.setdefault(chain.id, name)) != name:
            raise ConfigError(f"chain: {other} and {name} are the same chain ({chain.id}); choose one of them")
    role, command, chains = settings.role, settings.command, settings.chain
    if settings.amount is not None and command not in ("deposit", "withdraw"):
        raise ConfigError("amount: only command=deposit and command=withdraw take one")
    if command not in MONEY:
        return
    if role not in (fits := MONEY[command]):
        raise ConfigError(f"command={command}: that is for role={listed(fits)}, not role={role}")
    if not chains:
        raise ConfigError(f"command={command}: say on which chain, for instance chain=base")
    if command in ("deposit", "withdraw") and len(chains) > 1:
        raise ConfigError(
            f"command={command}: say on which one of {listed(list(chains), 'and')}: chain={next(iter(chains))}"
        )
    _check_amount(settings)


def is_server(url: str) -> bool:
    """Whether `url` can be the URL of a JSON-RPC server."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and port != 0
        and url.isprintable()
        and " " not in url
    )


def _check_chain(name: str, chain: Chain) -> None:
    oracle = None if chain.l1_oracle is None else chain.l1_oracle.address
    for key, address in (("contract", chain.contract), ("token", chain.token), ("l1_oracle.address", oracle)):
        if address is not None:
            check_address(f"chain.{name}.{key}", address)
    for url in chain.rpc:
        if not is_server(url):
            raise ConfigError(f"chain.{name}.rpc: {url[:64]!r} is no URL of a server, like https://rpc.example.org")
    if not chain.rpc and chain.rpc_env is None:
        raise ConfigError(f"chain.{name}.rpc: name a server, or in rpc_env a variable that holds the URL of one")


def _check_amount(settings: Settings) -> None:
    if settings.amount is None:
        if settings.command == "deposit":
            raise ConfigError("amount: say how much to pay in, in whole tokens: amount=0.05")
        return
    (chain,) = settings.chain.values()
    try:
        units.parse(settings.amount, chain.decimals)
    except ValueError as error:
        raise ConfigError(f"amount: {error}") from error
