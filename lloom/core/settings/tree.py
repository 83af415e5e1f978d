"""The whole tree of settings, as the command line and conf/ make it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from lloom.core.settings.accounting import AccountingSettings, Chain
from lloom.core.settings.base import Group, Money, Price
from lloom.core.settings.gateway import GatewaySettings
from lloom.core.settings.network import BridgeSettings, DhtSettings, NetworkSettings, RelaySettings, ValidatorSettings
from lloom.core.settings.node import IdentitySettings, KeygenSettings, LogSettings, MetricsSettings, RaySettings
from lloom.core.settings.routing import RoutingSettings
from lloom.core.settings.serving import Backend, ExecutorSettings

Role = Literal["client", "executor", "validator", "demo"]
Command = Literal[
    "serve", "ask", "models", "keygen", "key", "doctor", "deploy", "deposit", "withdraw", "settle", "usage"
]


class DemoSettings(Group, frozen=True):
    stay: bool
    model: str
    prompt: str
    executors: Annotated[int, Meta(ge=1, le=8)]
    input_price: Price
    """Of the built-in model, where there is a chain."""
    output_price: Price
    deposit: Money
    """What the demo's client pays in."""


class Settings(Group, frozen=True):
    """The whole tree."""

    role: Role
    command: Command
    model: str | None
    explain: str | None
    """command=models: why executors of this model are chosen or not."""
    prompt: str | None
    """One question, literally; `-` reads standard input."""
    output: Literal["text", "json", "csv"]
    home: str
    """Folder of keys and journals; each role has its own within."""
    identity: IdentitySettings
    keygen: KeygenSettings
    network: NetworkSettings
    dht: DhtSettings
    bridge: BridgeSettings
    gateway: GatewaySettings
    routing: RoutingSettings
    executor: ExecutorSettings
    validator: ValidatorSettings
    relay: RelaySettings
    llm: dict[str, Backend]
    accounting: AccountingSettings
    chain: dict[str, Chain]
    amount: str | None
    """Money for command=deposit and withdraw, in whole tokens: `0.05`."""
    source: Literal["ledger", "chain", "both"]
    """command=usage: the node's own journal, the contract's events, or both compared."""
    by: Literal["peer", "model", "day", "chain"]
    """command=usage: a line each."""
    ray: RaySettings
    metrics: MetricsSettings
    log: LogSettings
    demo: DemoSettings
