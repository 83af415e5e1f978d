"""The OpenAI-compatible HTTP API of a client node. It decides nothing about executors: that is the router's."""

from lloom.adapters.gateway.app import Gateway
from lloom.adapters.gateway.door import Guests
from lloom.adapters.gateway.health import Health
from lloom.adapters.gateway.server import Server

__all__ = ["Gateway", "Guests", "Health", "Server"]
