"""The servers of one chain, asked one after another until one answers. It never shows more of an address than its host.

web3 takes seconds to import, so this package does it when a chain is opened, and not before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from loguru import logger

from lloom.adapters.chain.answers import NONSENSE, count
from lloom.core.errors import ConfigError, RetryElsewhere
from lloom.core.settings import Chain

if TYPE_CHECKING:
    from lloom.adapters.chain.server import Server

T = TypeVar("T")

LAG_SECONDS: Final = 60.0
"""A server whose newest block is so much older than another's is passed over; the lag of a healthy one is a few blocks."""
LAG_BLOCKS: Final = 5
GRACE_SECONDS: Final = 2.0
"""A survey waits so long for others once one server has answered: a start is not held up by one that is dead."""
FIRST_REST_SECONDS: Final = 5.0
LONGEST_REST_SECONDS: Final = 300.0


class ChainAway(RetryElsewhere):
    """Raised when no server of a chain answers."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=503, code="chain_away", retry_after=5.0)


class Unreachable(Exception):
    """Raised when one server did not answer, or not in JSON-RPC; the text says why and holds no URL."""


class Refused(RetryElsewhere):
    """Raised when a server answered with an error: `reason` as it words it, `data` what a contract reverted with."""

    def __init__(self, where: str, reason: str, code: int, data: bytes = b"") -> None:
        super().__init__(f"{where} refused: {reason}", status=502, code="chain_refused")
        self.reason = reason.lower()
        self.number = code
        self.data = data
        self.unsure = False
        """Whether another server was asked as well and did not answer: it may have done what this one refuses."""

    @property
    def reverted(self) -> bool:
        """Whether it was the contract that refused."""
        return bool(self.data) or self.number == _REVERTED or "revert" in self.reason

    @property
    def known(self) -> bool:
        """Whether the server has that very transaction already."""
        return any(word in self.reason for word in _KNOWN)

    @property
    def final(self) -> bool:
        """Whether another server would say the same: it is about the transaction or the contract, not about the server."""
        return self.reverted or any(word in self.reason for word in _FINAL)


_REVERTED: Final = 3
_KNOWN: Final = ("already known", "already imported")
_FINAL: Final = (
    *_KNOWN,
    "nonce too low",
    "underpriced",
    "insufficient funds",
    "intrinsic gas",
    "exceeds block gas limit",
)
"""Words by which servers tell what is wrong with a call (there is no standard; geth, anvil, nethermind, erigon, reth)."""


class Rpc:
    """All servers of a chain. Who fails rests for a while, and shows its chain id again before it is used again."""

    def __init__(self, name: str, settings: Chain, servers: Sequence[Server], clock: Callable[[], float]) -> None:
        self.name = name
        self._settings = settings
        self._servers = servers
        self._clock = clock

    @classmethod
    def open(cls, name: str, settings: Chain, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> Rpc:
        """The servers at `urls`, none of which is asked yet."""
        from lloom.adapters.chain.server import Server

        return cls(name, settings, [Server(url, settings.rpc_seconds) for url in urls], clock)

    async def close(self) -> None:
        """Closes the connections."""
        for server in self._servers:
            await server.close()

    async def call(self, method: str, *params: Any) -> Any:
        """As `ask`, for a result of any form."""
        return await self.ask(lambda found: found, method, *params)

    async def ask(self, read: Callable[[Any], T], method: str, *params: Any) -> T:
        """The result of a JSON-RPC call as `read` reads it, by the first server that gives one that makes sense.

        ChainAway if none answers, Refused with what the first one said if all refuse.
        """
        refused: Refused | None = None
        troubles = []
        for server in sorted(self._servers, key=lambda each: each.rests_until > self._clock()):
            try:
                await self._recognise(server)
                return _sensible(read, await server.call(method, *params))
            except Refused as error:
                if error.final:
                    raise
                refused = refused or error
            except Unreachable as error:
                troubles.append(f"{server.shown}: {error}")
                self._rest(server, str(error))
        if refused is not None:
            refused.unsure = bool(troubles)
            raise refused
        raise ChainAway(f"No server of the chain {self.name} answers ({'; '.join(troubles)}).")

    async def survey(self) -> None:
        """Asks all servers at once which chain they have and how far they are; those of another chain, or far behind, rest.

        ConfigError if all of them have another chain; ChainAway if none answers that has ours: those that are away may have it.
        """
        found = await self._heights()
        best = max((height for height in found if height is not None), default=None)
        if best is None:
            strange = [server for server in self._servers if server.chain_id not in (None, self._settings.id)]
            if strange and len(strange) == len(self._servers):
                raise ConfigError(
                    f"chain.{self.name}: {strange[0].shown} serves the chain {strange[0].chain_id}, "
                    f"not {self._settings.id}"
                )
            named = [
                each.shown + f" (which serves the chain {each.chain_id})" * (each in strange) for each in self._servers
            ]
            raise ChainAway(f"No server of the chain {self.name} answers: {', '.join(named)}.")
        lag = max(LAG_BLOCKS, int(LAG_SECONDS / self._settings.block_seconds))
        for server, height in zip(self._servers, found, strict=True):
            if height is not None and height < best - lag:
                self._rest(server, f"it is {best - height} blocks behind")
                server.rests_until = self._clock() + LONGEST_REST_SECONDS  # it answers well: only a survey finds it out

    async def _heights(self) -> list[int | None]:
        """How far each server is; None for those that do not answer soon after the first one, or have another chain."""
        looks = [asyncio.create_task(self._look(server)) for server in self._servers]
        try:
            waiting = set(looks)
            while waiting and not any(look.done() and look.result() is not None for look in looks):
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if waiting:
                await asyncio.wait(waiting, timeout=GRACE_SECONDS)
            for server, look in zip(self._servers, looks, strict=True):
                if not look.done():
                    self._rest(server, "no answer in time")
            return [look.result() if look.done() else None for look in looks]
        finally:
            for look in looks:
                look.cancel()
            await asyncio.gather(*looks, return_exceptions=True)

    async def _look(self, server: Server) -> int | None:
        """The height of a server; None if it does not answer or has another chain."""
        try:
            server.chain_id = None
            await self._recognise(server)
            height = _sensible(count, await server.call("eth_blockNumber"))
        except (Unreachable, Refused) as error:
            self._rest(server, str(error))
            return None
        self._recover(server)
        return height

    async def _recognise(self, server: Server) -> None:
        """Unreachable if the server's chain is not ours."""
        if server.chain_id is None:
            server.chain_id = await server.ask_chain_id()
        if server.chain_id != self._settings.id:
            raise Unreachable(f"it serves the chain {server.chain_id}, not {self._settings.id}")

    def _rest(self, server: Server, why: str) -> None:
        now = self._clock()
        if server.rests_until <= now:
            server.failures += 1
            seconds = min(FIRST_REST_SECONDS * 2 ** (server.failures - 1), LONGEST_REST_SECONDS)
            server.rests_until = now + seconds
            logger.warning("{} is passed over for a while: {}", server.shown, why)
        if server.chain_id == self._settings.id:
            server.chain_id = None  # whoever answers there next may be another

    def _recover(self, server: Server) -> None:
        if server.failures and server.rests_until <= self._clock():
            logger.info("{} answers again", server.shown)
            server.failures = 0


def _sensible(read: Callable[[Any], T], found: Any) -> T:
    try:
        return read(found)
    except NONSENSE:
        raise Unreachable("its answer makes no sense") from None


def shown(url: str) -> str:
    """Scheme, host and port of a URL: the rest may hold a key."""
    parts = urlsplit(url)
    host = parts.hostname or "?"
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}"


def urls(chain: Chain, secrets: Mapping[str, str]) -> tuple[str, ...]:
    """The servers of `chain` in order of preference: the one of the user's own comes first."""
    own = secrets.get(chain.rpc_env, "") if chain.rpc_env else ""
    return tuple(dict.fromkeys(url for url in (own, *chain.rpc) if url))
