"""Who may use the gateway: nobody by accident, and where there are keys, nobody without one. It never keeps or shows a key."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from lloom.adapters.gateway.exchange import Exchange
from lloom.core.allowance import Allowance
from lloom.core.errors import CallerFault
from lloom.core.messages import FROM_EXECUTOR
from lloom.core.token import digest

OPEN_PATH: Final = "/health"
"""Whoever balances load has no key; without one it tells no more than whether the node is well."""

_FROM_EXECUTOR: Final = FROM_EXECUTOR.encode()
_NO_PLACE: Final[AbstractContextManager[None]] = contextlib.nullcontext()
_LOCAL_HOSTS: Final = frozenset({b"127.0.0.1", b"[::1]", b"localhost"})


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody who was let in. `allowance`: None if nothing limits it."""

    allowance: Allowance | None
    name: str
    """What its key is called; nothing where none is needed."""
    known: bool
    """Whether it showed a key, or needs none."""
    sees_all: bool
    """Whether it may read what all others do."""


OWNER: Final = Visit(allowance=None, name="", known=True, sees_all=True)
"""The user of this node, or whoever reaches it where there are no keys."""
_STRANGER: Final = Visit(allowance=None, name="", known=False, sees_all=False)

VISIT: Final[ContextVar[Visit]] = ContextVar("visit")
"""Whose request a task works for."""


@dataclass(frozen=True, slots=True)
class Guests:
    """Who may use the gateway beside its owner; nobody: it is open to all who reach it."""

    allowances: Sequence[Allowance] = ()
    own: str = ""
    """A key for this node's other commands, made anew at every start."""
    spent: Callable[[str, int, int], None] = lambda _name, _day, _tokens: None
    """Told a key's name, a day (since 1970, UTC), and the tokens that it has used on it in all."""


class Door:
    """Lets callers in."""

    def __init__(self, host: str, guests: Guests) -> None:
        """`host`: the address that the gateway listens on."""
        self._hosts = _LOCAL_HOSTS | {host.encode()}
        self._visits = {
            bytes.fromhex(each.terms.sha256): Visit(each, each.name, known=True, sees_all=each.terms.metrics)
            for each in guests.allowances
        }
        if self._visits:
            self._visits[digest(guests.own.encode())] = OWNER
        # A page that leads its own name to this machine has no key; a proxy in front of it hands on the name it is called by.
        self._names_checked = is_local(host) and not self._visits

    def visit(self, exchange: Exchange) -> AbstractContextManager[None]:
        """VISIT says from now on who came; while it lasts, its place is taken.

        CallerFault (401, 403, 415, 508): who may not come; 429, when it begins: who may not now.
        """
        self._check(exchange)
        visit = self._who(exchange)
        VISIT.set(visit)
        allowance = visit.allowance
        return _NO_PLACE if allowance is None or exchange.scope["method"] != "POST" else _place(exchange, allowance)

    def _check(self, exchange: Exchange) -> None:
        """Keeps out circles, and web pages that the user's browser happens to show: the gateway spends in the user's name."""
        if exchange.header(_FROM_EXECUTOR) is not None:
            raise CallerFault(
                "An executor has this gateway as its backend, so the request would go round in a circle. Name the model's own "
                "server in its base_url.",
                status=508,
                code="loop",
            )
        host = (exchange.header(b"host") or b"").lower()
        if self._names_checked and host and _without_port(host) not in self._hosts:
            raise CallerFault(
                f"This gateway is for this machine only; it does not answer for the host {host.decode(errors='replace')!r}. "
                "Use http://127.0.0.1 or http://localhost.",
                status=403,
                code="wrong_host",
            )
        if exchange.scope["method"] == "POST" and exchange.header(b"origin") and not _is_json(exchange):
            raise CallerFault(
                "A request from a web page must have the content type application/json.",
                status=415,
                code="unsupported_media_type",
            )

    def _who(self, exchange: Exchange) -> Visit:
        if not self._visits:
            return OWNER
        shown = _shown(exchange)
        if shown is None:
            if exchange.scope["path"] == OPEN_PATH:
                return _STRANGER
            raise _unknown("You did not show a key. Send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'.")
        # Hashes are compared, each in constant time and all of them: how long it takes tells nothing of a key.
        hashed = digest(shown)
        found = [visit for known, visit in self._visits.items() if hmac.compare_digest(known, hashed)]
        if not found:
            raise _unknown("This key is not known here.")
        return found[0]


@contextlib.contextmanager
def _place(exchange: Exchange, allowance: Allowance) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    exchange.also = lambda: [(name.encode(), value.encode()) for name, value in allowance.headers(loop.time())]
    allowance.enter(loop.time())
    try:
        yield
    finally:
        allowance.leave()


def is_local(host: str) -> bool:
    """Whether a gateway that listens on `host` is reached from this machine only."""
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


def _shown(exchange: Exchange) -> bytes | None:
    """The key that a caller shows, by OpenAI's header or by Anthropic's."""
    scheme, _, key = (exchange.header(b"authorization") or b"").partition(b" ")
    if scheme.lower() == b"bearer" and key.strip():
        return key.strip()
    return exchange.header(b"x-api-key") or None


def _is_json(exchange: Exchange) -> bool:
    kind = (exchange.header(b"content-type") or b"").split(b";")[0]
    return kind.strip().lower() == b"application/json"


def _unknown(message: str) -> CallerFault:
    return CallerFault(message, status=401, code="invalid_api_key")


def _without_port(host: bytes) -> bytes:
    if host.startswith(b"["):
        return host[: host.find(b"]") + 1]
    return host.split(b":")[0]
