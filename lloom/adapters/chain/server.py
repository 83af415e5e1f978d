"""One JSON-RPC server, through web3's provider with a session of our own. It imports web3, so import it late."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final, cast

import aiohttp

_LIMIT = sys.getrecursionlimit()
from web3 import AsyncHTTPProvider, AsyncWeb3  # noqa: E402

# py_ecc, which web3 brings, raises it to 100,000: deep JSON of a stranger would end the process, where it is an error otherwise.
sys.setrecursionlimit(_LIMIT)

from lloom.adapters.chain.answers import NONSENSE, count  # noqa: E402
from lloom.adapters.chain.rpc import Refused, Unreachable, shown  # noqa: E402

LONGEST_ANSWER: Final = 64 * 1024 * 1024
"""Bytes; ten thousand logs, which is what most servers give at once, have six million."""
_CHUNK: Final = 1 << 16
_REASON: Final = 200
"""Characters of a server's own words."""
_TOO_MANY: Final = 429


class _Provider(AsyncHTTPProvider):
    """web3's own opens a connection for each call, and cannot read errors that come with an HTTP status."""

    def __init__(self, url: str, seconds: float) -> None:
        super().__init__(url, exception_retry_configuration=None)
        self._url = url
        self._seconds = seconds
        self._session: aiohttp.ClientSession | None = None

    async def _make_request(self, method: str, request_data: bytes) -> bytes:  # noqa: ARG002 (web3's signature)
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(self._seconds))
        headers = self.get_request_headers()
        async with self._session.post(self._url, data=request_data, headers=headers, allow_redirects=False) as answer:
            body = bytearray()
            async for chunk in answer.content.iter_chunked(_CHUNK):
                body += chunk
                if len(body) > LONGEST_ANSWER:
                    raise Unreachable("its answer is too long")
            if answer.status == _TOO_MANY or (not answer.ok and not body.lstrip().startswith(b"{")):
                raise Unreachable(f"HTTP {answer.status}")
            return bytes(body)

    async def disconnect(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class Server:
    """A server and how it has behaved; `Rpc` keeps these notes."""

    def __init__(self, url: str, seconds: float) -> None:
        self.shown = shown(url)
        self.chain_id: int | None = None
        """What it said last; None: it is asked before it is used."""
        self.rests_until = 0.0
        self.failures = 0
        self._provider = _Provider(url, seconds)
        self.web3: AsyncWeb3[Any] = AsyncWeb3(self._provider)

    async def call(self, method: str, *params: Any) -> Any:
        """The result; Refused if the server answers with an error, Unreachable if it does not answer in time and form."""
        try:
            answer = cast(dict[str, Any], await self._provider.make_request(cast(Any, method), params))
        except TimeoutError:
            raise Unreachable("no answer in time") from None
        except aiohttp.ClientConnectionError:
            raise Unreachable("no connection") from None
        except aiohttp.ClientError as error:  # its text may hold the URL
            raise Unreachable(type(error).__name__) from None
        except (ValueError, RecursionError):
            raise Unreachable("its answer is no JSON") from None
        if not isinstance(answer, dict):
            raise Unreachable("its answer is no JSON-RPC")
        if (error_found := answer.get("error")) is not None:
            raise _refusal(self.shown, error_found)
        if "result" not in answer:  # some say `error` of every answer, and null if there was none
            raise Unreachable("its answer is no JSON-RPC")
        return answer["result"]

    async def ask_chain_id(self) -> int:
        """EIP-155; Unreachable if it does not say."""
        try:
            return count(await self.call("eth_chainId"))
        except (Refused, *NONSENSE):
            raise Unreachable("it does not say which chain it serves") from None

    async def close(self) -> None:
        """Closes the connection."""
        await self._provider.disconnect()
        await asyncio.sleep(0)


def _refusal(where: str, error: Any) -> Refused:
    found = error if isinstance(error, dict) else {"message": error}
    words = "".join(c if c.isprintable() else " " for c in str(found.get("message", "")))[:_REASON]
    number = found.get("code")
    return Refused(where, words or "it does not say why", number if isinstance(number, int) else 0, _data(found))


def _data(error: dict[str, Any]) -> bytes:
    """What a contract reverted with: at one of the places where servers put it."""
    data = error.get("data")
    if isinstance(data, dict):
        data = data.get("data") or data.get("result")
    if isinstance(data, str) and data.startswith("0x"):
        try:
            return bytes.fromhex(data[2:])
        except ValueError:
            return b""
    return b""
