"""Runs the node of the configured role until it is told to stop."""

from __future__ import annotations

import os

from lloom.adapters.machine import keystore
from lloom.commands import nodes
from lloom.core.settings import Settings
from lloom.node import Node


def run(settings: Settings) -> int:
    """Exit status of the node."""
    if settings.role == "demo":
        from lloom.commands import demo

        return demo.run(settings)
    identity = keystore.load(settings.identity, os.environ)
    node = Node(settings, identity, keystore.provider_keys(settings, os.environ))
    return nodes.run(lambda _: [node])
