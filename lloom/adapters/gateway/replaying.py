"""Requests with an Idempotency-Key: answered once, and given again to who asks again. It understands neither of both."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from lloom.adapters.gateway.exchange import Exchange
from lloom.core.api.dialect import Headers
from lloom.core.errors import CallerFault
from lloom.core.replays import Replays
from lloom.core.settings import GatewaySettings

HEADER: Final = b"idempotency-key"
_KEY: Final = re.compile(rb"[\x21-\x7e]{1,255}")
_OK: Final = 200


class Replaying:
    """Keeps whole answers, plain and streamed, in memory."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._replays: Replays[Headers] = Replays(settings.replay_bytes, settings.replay_seconds)

    async def once(self, exchange: Exchange, whose: str, body: bytes, answer: Callable[[], Awaitable[None]]) -> None:
        """Gives the answer again, or makes it by `answer`. CallerFault (400, 409) as `Replays.begin`."""
        name = exchange.header(HEADER)
        if name is None:
            await answer()
            return
        if not _KEY.fullmatch(name):
            raise CallerFault("An Idempotency-Key has 1 to 255 visible characters.", code="invalid_idempotency_key")
        key = (whose, exchange.scope["path"], name)
        clock = asyncio.get_running_loop().time
        found = self._replays.begin(key, hashlib.sha256(body).digest(), clock())
        if found is not None:
            copy, headers = found
            await exchange.repeat(_OK, headers, bytes(copy.data))
            return
        copy = self._replays.copies.begin()
        exchange.copied = partial(self._replays.copies.add, copy)
        try:
            await answer()
        except BaseException:
            self._replays.forget(key, copy)
            raise
        if exchange.status == _OK:
            self._replays.keep(key, copy, exchange.answer_headers, clock())
        else:
            self._replays.forget(key, copy)
