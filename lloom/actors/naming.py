"""Has the models that a node deals with journaled by name: receipts hold hashes. It sees no request."""

from __future__ import annotations

from typing import Final

from lloom.actors.outbox import Outbox
from lloom.actors.place import Place

ASK_SECONDS: Final = 10.0


class Naming:
    """Made in a running loop; `close` when nothing is heard of any more."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._told: set[str] = set()
        self._outbox: Outbox[str] = Outbox("names of models", self._learn, place.settings.accounting)

    def heard(self, model: str) -> None:
        """A canonical id is in use here."""
        if model not in self._told:
            self._told.add(model)
            self._outbox.put(model)

    async def close(self) -> None:
        """As `Outbox.close`."""
        await self._outbox.close()

    async def _learn(self, models: list[str]) -> None:
        await self._place.ask("accounting", "learn", models, seconds=ASK_SECONDS)
