"""The plain, frozen form of the YAML tree. It holds names of secrets, never secrets, and no default: those stand in conf/."""

from __future__ import annotations

from lloom.core.settings.accounting import AccountingSettings, Chain, PrepaySettings, SettlementSettings
from lloom.core.settings.gateway import GatewayKey, GatewaySettings
from lloom.core.settings.network import BridgeSettings, DhtSettings, NetworkSettings, RelaySettings, ValidatorSettings
from lloom.core.settings.node import IdentitySettings, KeygenSettings, LogSettings, MetricsSettings, RaySettings
from lloom.core.settings.routing import ModelRouting, Policy, RoutingSettings
from lloom.core.settings.serving import (
    Backend,
    ExecutorSettings,
    Faults,
    Feature,
    LiteLLMBackend,
    MockBackend,
    Model,
    OpenAIBackend,
    Resources,
    SmolLM2Backend,
)
from lloom.core.settings.tree import Command, Role, Settings

__all__ = [
    "AccountingSettings",
    "Backend",
    "BridgeSettings",
    "Chain",
    "Command",
    "DhtSettings",
    "ExecutorSettings",
    "Faults",
    "Feature",
    "GatewayKey",
    "GatewaySettings",
    "IdentitySettings",
    "KeygenSettings",
    "LiteLLMBackend",
    "LogSettings",
    "MetricsSettings",
    "MockBackend",
    "Model",
    "ModelRouting",
    "NetworkSettings",
    "OpenAIBackend",
    "Policy",
    "PrepaySettings",
    "RaySettings",
    "RelaySettings",
    "Resources",
    "Role",
    "RoutingSettings",
    "Settings",
    "SettlementSettings",
    "SmolLM2Backend",
    "ValidatorSettings",
]
