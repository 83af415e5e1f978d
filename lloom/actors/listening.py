"""A bridge listener that always has a valid certificate. Who endorses it, and what it serves, is its caller's business."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from lloom.actors.base import NAP_SECONDS, worn
from lloom.actors.place import Place
from lloom.adapters.bridge import Certificate, Handler, Listener, OnControl, Service
from lloom.adapters.machine import interface
from lloom.core.bridge import certificate
from lloom.core.bridge.certificate import Endorsement
from lloom.core.errors import ConfigError
from lloom.core.messages import Control

Endorse = Callable[[bytes], Awaitable[Endorsement]]
"""The node's word for a TLS key, named by its public hash."""


async def listen(place: Place, port: int, endorse: Endorse, handler: Handler, on_control: OnControl) -> Listener:
    """Listens at `network.host` and `port`, ConfigError if that is not possible; a node that hides is for this machine only."""
    network = place.settings.network
    host = interface.loopback(network.host) if network.relay == "only" else network.host
    service = Service(place.node, network.name, place.settings.bridge, handler, on_control)
    try:
        return await Listener.start(host, port, await _certificate(endorse), service)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"network.port: cannot listen on {host}:{port} (TCP): {reason}") from error


async def keep_certified(listener: Listener, lifetime: float, endorse: Endorse) -> None:
    """Shows a new certificate well before the old one expires, for ever."""
    began = time.time()
    while True:
        await asyncio.sleep(min(NAP_SECONDS, lifetime / 4))
        if worn(began, lifetime):
            began = time.time()
            listener.renew(await _certificate(endorse))


def silence(_connection: object, _message: Control) -> None:
    """Whoever calls has nothing to say beside its calls yet."""


async def _certificate(endorse: Endorse) -> Certificate:
    """A new TLS key with the node's word for it."""
    key = certificate.new_key()
    return Certificate(key, certificate.issue(key, await endorse(certificate.public_hash(key))))
