"""Turns the composed tree into settings that make sense together. It never looks at the machine: no file, variable or port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from lloom.core import anchor
from lloom.core.configuration import backends, money
from lloom.core.configuration.literals import check_address, ip_address, model_id
from lloom.core.configuration.wording import invalid_value, listed
from lloom.core.errors import ConfigError
from lloom.core.routing.rules import resolved
from lloom.core.settings import (
    Backend,
    Chain,
    Model,
    ModelRouting,
    NetworkSettings,
    RoutingSettings,
    Settings,
)

_LAST_PORT: Final = 65_535
_ALONE: Final = frozenset({"keygen", "key", "usage", *money.MONEY})
"""Commands that need neither a network nor backends."""


def settings(tree: Mapping[str, Any]) -> Settings:
    """The frozen form of a plain tree of dicts and lists; ConfigError names what is wrong and what to write instead."""
    try:
        found = msgspec.convert(tree, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(_named(invalid_value(str(error)), tree)) from error
    check(found)
    return found


def check(settings: Settings) -> None:
    """ConfigError for what is right by itself and wrong together."""
    _check_command(settings)
    _check_gateway(settings)
    _check_metrics(settings)
    _check_routing(settings.routing)
    _check_network(settings)
    _check_backends(settings)
    money.check(settings)


def _check_command(settings: Settings) -> None:
    role, command = settings.role, settings.command
    if role != "client" and (command in ("ask", "models") or (settings.prompt is not None and role != "demo")):
        what = "prompt" if command == "serve" else f"command={command}"
        raise ConfigError(f"{what}: only a client asks the network, so it does not go with role={role}")
    if settings.prompt is not None and command not in ("serve", "ask"):
        raise ConfigError(f"prompt: command={command} takes none")
    if (command == "ask" or settings.prompt is not None) and not (settings.prompt or "").strip():
        raise ConfigError("prompt: there is no question; write prompt='…', or prompt=- to read it from standard input")
    if command == "keygen" and role == "demo":
        raise ConfigError(
            "command=keygen: a demo makes keys of its own; say for which role, for instance role=executor"
        )
    if command == "doctor" and role == "demo":
        raise ConfigError("command=doctor: a demo needs nothing; say for which role, for instance role=executor")
    if command == "key" and role != "client":
        raise ConfigError(f"command=key: only a client has a gateway, so it does not go with role={role}")
    if settings.output == "csv" and command != "usage":
        raise ConfigError("output: only command=usage knows csv")
    if settings.model is not None:
        model_id("model", settings.model)
    if settings.explain is not None:
        if command != "models":
            raise ConfigError("explain: only command=models explains")
        model_id("explain", settings.explain)


def _check_gateway(settings: Settings) -> None:
    gateway = settings.gateway
    if gateway.keys and settings.role == "demo":
        raise ConfigError("gateway.keys: the gateway of a demo is for this machine, and has none")
    if not gateway.keys and gateway.host != "localhost" and not ip_address("gateway.host", gateway.host).is_loopback:
        raise ConfigError(
            f"gateway.host: whoever reaches {gateway.host} would spend in your name; make a key with command=key and name its "
            "hash in gateway.keys, or stay on this machine (127.0.0.1)"
        )
    owners: dict[str, str] = {}
    for name, key in gateway.keys.items():
        if (other := owners.setdefault(key.sha256, name)) != name:
            raise ConfigError(f"gateway.keys: {other} and {name} are the same key; give each its own (command=key)")
    for origin in gateway.cors:
        _check_origin(origin, open_to_all=not gateway.keys)


def _check_origin(origin: str, *, open_to_all: bool) -> None:
    if origin == "*":
        if open_to_all:
            raise ConfigError("gateway.cors: with '*' and no gateway.keys, every web page could spend in your name")
        return
    scheme, _, host = origin.partition("://")
    if scheme not in ("http", "https") or not host or set(host) & set("/?#@ *"):
        raise ConfigError(f"gateway.cors: {origin[:64]!r} is no origin, like https://app.example")


def _check_metrics(settings: Settings) -> None:
    metrics = settings.metrics
    if metrics.host != "localhost" and not ip_address("metrics.host", metrics.host).is_loopback:
        raise ConfigError(
            "metrics.host: whoever reaches the numbers may read them, so they stay on this machine (127.0.0.1)"
        )
    if metrics.port is None:
        return
    if settings.role == "client":
        raise ConfigError("metrics.port: a client shows its numbers at its gateway's /metrics")
    if settings.role == "demo":
        raise ConfigError("metrics.port: a demo has several nodes; leave it out")


def _check_routing(routing: RoutingSettings) -> None:
    _check_rules("routing", routing)
    for pattern in routing.models:
        _check_rules(f"routing.models.{pattern}", resolved(routing, pattern.lower()))
    for alias, meant in routing.aliases.items():
        model_id(f"routing.aliases.{alias[:64]}", alias)
        if not meant:
            raise ConfigError(
                f"routing.aliases.{alias}: say which models it stands for, for instance [llama-3.3-70b,qwen*]"
            )


def _check_rules(key: str, routing: RoutingSettings) -> None:
    """The whole of the rules, or as they are for some models."""
    if (routing.policy == "pinned") != bool(routing.executors):
        raise ConfigError(
            f"{key}: the policy pinned needs {key}.executors=[0x…]"
            if routing.policy == "pinned"
            else f"{key}.executors: only the policy pinned uses them, not {routing.policy}"
        )
    for name in ("executors", "allow", "deny"):
        for executor in getattr(routing, name):
            check_address(f"{key}.{name}", executor)


def _check_network(settings: Settings) -> None:
    network = settings.network
    for entry in network.bootstrap:
        _check_anchor(entry, network)
    if settings.command in _ALONE:
        return
    if settings.role == "client" and not (network.bootstrap or network.mdns):
        raise ConfigError(
            "network.bootstrap: name at least one node that lets us in: network.bootstrap=[203.0.113.7:9000]"
        )
    if settings.role == "validator":
        if network.relay == "only":
            raise ConfigError("network.relay: only executors are reached through others; a validator has to be dialled")
        _check_reachable(network, told=False)
    if settings.role == "executor":
        # Validators say at which address they see an executor, and relay to one that has none.
        _check_reachable(network, told=network.relay == "only" or (network.relay == "auto" and bool(network.bootstrap)))
    if settings.role == "executor" and network.port and network.port + settings.executor.workers - 1 > _LAST_PORT:
        raise ConfigError(
            f"network.port: {settings.executor.workers} workers from {network.port} on pass the last port"
        )


def _check_reachable(network: NetworkSettings, *, told: bool) -> None:
    """Others are told one literal address, and it must lead here; `told`: the node can do without, or learns it."""
    key, host = ("network.advertise", network.advertise) if network.advertise else ("network.host", network.host)
    if ip_address(key, host).is_unspecified and not told:
        raise ConfigError(
            f"network.advertise: {host} listens on every address of this machine; say which one others can reach: "
            "network.advertise=203.0.113.7 (an executor with network.bootstrap=[…] is told by validators)"
        )


def _check_anchor(entry: str, network: NetworkSettings) -> None:
    """A validator, named so that on the open internet nobody else can answer in its place."""
    found = anchor.parse(entry)
    if found.address is None and not network.private:
        raise ConfigError(
            f"network.bootstrap: write 0xADDRESS@{entry[:64]}; a validator prints its address when it starts, and on the "
            "internet anybody could answer in its place"
        )


def _check_backends(settings: Settings) -> None:
    serves = settings.role in ("executor", "demo")
    if serves and not settings.llm and settings.command not in _ALONE:
        raise ConfigError(f"llm: role={settings.role} serves no model; choose backends, for instance llm=[smollm2]")
    if settings.llm and not serves:
        raise ConfigError(
            f"llm: only an executor has backends, role={settings.role} has no use for {listed(list(settings.llm))}"
        )
    backends.check(settings.llm)


def _named(sentence: str, tree: Mapping[str, Any]) -> str:
    """msgspec does not say which entry of a dict is wrong, so a sentence about `llm.*` or `chain.*` tries them one by one."""
    chains = tree.get("chain")
    if sentence.startswith("chain.*") and isinstance(chains, Mapping):
        wrong_ones = (name for name, chain in chains.items() if not _fits(chain, Chain))
        return sentence.replace("chain.*", f"chain.{next(wrong_ones, '*')}")
    routing = tree.get("routing")
    overrides = routing.get("models") if isinstance(routing, Mapping) else None
    if sentence.startswith("routing.models.*") and isinstance(overrides, Mapping):
        wrong_ones = (name for name, said in overrides.items() if not _fits(said, ModelRouting))
        return sentence.replace("routing.models.*", f"routing.models.{next(wrong_ones, '*')}")
    chosen = tree.get("llm")
    if not sentence.startswith("llm.*") or not isinstance(chosen, Mapping):
        return sentence
    for name, backend in chosen.items():
        if not _fits(backend, Backend):
            models = backend.get("models") if isinstance(backend, Mapping) else None
            wrong = (
                [m for m, terms in models.items() if not _fits(terms, Model | None)]
                if isinstance(models, Mapping)
                else []
            )
            return sentence.replace("llm.*", f"llm.{name}").replace(
                "models.*", f"models.{wrong[0]}" if wrong else "models"
            )
    return sentence


def _fits(value: object, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True
