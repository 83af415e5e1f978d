"""The validator: where nodes enter the network, and where their records are kept. It answers no prompt."""

from __future__ import annotations

from lloom.actors.base import Actor
from lloom.adapters.dht import Dht


class ValidatorNode(Actor):
    """Bootstrap and storage for the DHT."""

    async def run(self) -> None:
        settings = self.place.settings
        dht = await Dht.start(self.place.identity(), settings.network, settings.dht, client=False)
        try:
            self.up(f"lets nodes in at {settings.network.advertise or settings.network.host}:{dht.port} (UDP)")
            await self.stopping.wait()
        finally:
            await dht.stop()
