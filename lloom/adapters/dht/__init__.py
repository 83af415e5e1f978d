"""Discovery: who serves a model, and how they are reached. `Dht` is all the rest of the node needs; it never carries requests."""

from lloom.adapters.dht.node import Contact, Dht, DhtStatus

__all__ = ["Contact", "Dht", "DhtStatus"]
