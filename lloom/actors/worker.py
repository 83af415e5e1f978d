"""A Worker: the bridge's listener with the engines behind it. It holds no key but the short-lived one of its TLS."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Final

from loguru import logger

from lloom.actors.base import Actor
from lloom.actors.place import FellowAway, Place
from lloom.adapters.bridge import Certificate, Connection, Listener
from lloom.adapters.llm import Engine, engines
from lloom.adapters.serving import Serving
from lloom.core import certificate
from lloom.core.eip712 import Domain
from lloom.core.messages import Control, Receipts
from lloom.core.offer import Endpoint, ModelOffer, unseal
from lloom.core.receipt import Draft

ASK_SECONDS: Final = 10.0
"""For calls to fellow actors; they answer within milliseconds unless they are being restarted (1.4 to 2.7 s)."""
RENEW_SHARE: Final = 0.5
"""A certificate is renewed at this share of its life."""


class Worker(Actor):
    """Serves the engines at `port`; others reach it at `endpoint`."""

    def __init__(self, place: Place, port: int, endpoint: Endpoint) -> None:
        super().__init__(place)
        self._port = port
        self._endpoint = endpoint
        self._models: dict[str, tuple[Engine, ModelOffer]] = {}
        self._drafts: asyncio.Queue[tuple[Connection, Draft]] = asyncio.Queue(place.settings.accounting.backlog)

    async def run(self) -> None:
        settings = self.place.settings
        async with AsyncExitStack() as stack:
            self._models = await self._start_engines(stack)
            serving = Serving(settings.executor, settings.bridge, Domain(), self._models, self._bill)
            listener = await Listener.start(
                settings.network.host, self._port, await self._certificate(), self._link(), serving.handle, _no_control
            )
            stack.push_async_callback(listener.close)
            await self._enlist(serving)
            self.up(f"serves {', '.join(sorted(self._models))} at {self._endpoint} (TCP)")
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._follow_offer(serving)),
                    group.create_task(self._renew(listener)),
                ]
                await self.stopping.wait()
                for task in tasks:
                    task.cancel()
