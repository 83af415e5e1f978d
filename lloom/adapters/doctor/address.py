"""At which address peers see this machine, and whether it can be dialled there. It opens the node's ports for a moment only."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from lloom.adapters.anchors.inquiry import Whereabouts, ask
from lloom.adapters.bridge import Certificate, Listener, Service, Stream
from lloom.adapters.dht.addresses import is_public
from lloom.adapters.doctor.ports import needs
from lloom.adapters.doctor.visit import Visit
from lloom.adapters.machine import interface, ports
from lloom.core.bridge import certificate
from lloom.core.errors import ConfigError, RetryElsewhere
from lloom.core.finding import Finding, ok, problem, warning
from lloom.core.messages import ReachCall, Reached, decoder

DIAL_BACK_SECONDS: Final = 10.0
"""A validator gives up on a silent port after bridge.connect_seconds, one port after another."""
CERTIFICATE_SECONDS: Final = 600.0
CGNAT: Final = ipaddress.IPv4Network("100.64.0.0/10")
"""RFC 6598: between a provider's NAT and its customers."""

_reached = decoder(Reached)


def address(visit: Visit) -> Finding:
    """The address that peers see, beside the one that is told to others."""
    network, observed = visit.settings.network, visit.dht.status.observed
    if observed is None:
        return warning(
            "address", "unknown: too few peers have said where they see this node", "ask again with more of them"
        )
    told = network.advertise or network.host
    serves = visit.settings.role in ("executor", "validator")
    own = interface.own(observed)
    where = "an address of this machine" if own else "not of this machine: a router translates (NAT)"
    if not network.private and not is_public(observed):
        return warning(
            "address", f"peers see {observed}, a private one", "use network=lan, or validators on the internet"
        )
    hidden = network.relay == "only"
    if serves and told != observed and not (hidden or ipaddress.ip_address(told).is_unspecified):
        advice = f"say network.advertise={observed}, unless others do reach {told}"
        return warning("address", f"peers see {observed} ({where}), but others are told {told}", advice)
    if serves and not own and _behind_provider():
        advice = "ports cannot be opened behind a provider's NAT: ask for an address of your own, or leave it to relays"
        return warning("address", f"peers see {observed}; the provider translates addresses (CGNAT)", advice)
    return ok("address", f"peers see {observed}, {where}")


async def reachability(visit: Visit) -> Finding:
    """Whether a validator can dial us at the node's ports: the node itself if it runs, else a listener of ours."""
    settings = visit.settings
    if settings.role == "client":
        return ok("reachability", "a client dials others; nobody has to reach it")
    if settings.role == "executor" and settings.network.relay == "only":
        return ok("reachability", "reached through validators only (network.relay=only)")
    anchors = visit.dht.anchors
    if not anchors:
        return warning("reachability", "not checked: no validator can dial back", "see bootstrap")
    try:
        async with _listening(visit) as at:
            answers = await asyncio.gather(*(_dialled(visit, each, at) for each in anchors))
    except ConfigError as error:
        return warning("reachability", f"not checked: {error}", "see ports")
    return _judge(visit, at, [answer for answer in answers if answer is not None])


def _judge(visit: Visit, at: tuple[int, ...], answers: list[Reached]) -> Finding:
    """What the validators that answered found at the ports `at`."""
    if not answers:
        return warning("reachability", "not checked: no validator answered", "try again; see bootstrap")
    unreached = {
        port: [answer.problems[index] for answer in answers]
        for index, port in enumerate(at)
        if all(answer.problems[index : index + 1] != ("",) for answer in answers)
    }
    host = answers[0].host
    if not unreached:
        return ok("reachability", f"validators reach {host} at TCP {', '.join(map(str, at))}")
    port, why = next(iter(unreached.items()))
    told = f"no validator reaches {host} at TCP {', '.join(map(str, unreached))}: {_short(why[0])}"
    advice = (
        f"open TCP and UDP {port} in the firewall, and forward them here in the router (network.upnp=true asks it to)"
    )
    if visit.settings.role == "executor" and visit.settings.network.relay == "auto":
        return warning("reachability", f"{told}. Clients get here through validators, which is slower", advice)
    return problem("reachability", told, advice)


def _short(why: str) -> str:
    """Without who and where, which the reader knows."""
    return why.partition("cannot be reached at ")[2].partition(": ")[2] or why


@asynccontextmanager
async def _listening(visit: Visit) -> AsyncIterator[tuple[int, ...]]:
    """The TCP ports of the node, something of ours listening at each unless the node does. ConfigError if they are taken."""
    network, wanted = visit.settings.network, needs(visit.settings)
    distances = [distance for kind, distance in wanted if kind == socket.SOCK_STREAM]
    if visit.running:
        if not visit.own:
            raise ConfigError("the node runs, and its key is not at hand")
        if not network.port:
            raise ConfigError("the node runs at a port of its own choice (network.port=0)")
        yield tuple(network.port + distance for distance in distances)
        return
    first = ports.first_port(network.host, network.port, wanted, "network.port")
    async with AsyncExitStack() as stack:
        for distance in distances:
            try:
                listener = await _listener(visit, first + distance)
            except OSError as error:
                raise ConfigError(f"port {first + distance} was taken meanwhile") from error
            stack.push_async_callback(listener.close)
        yield tuple(first + distance for distance in distances)


async def _listener(visit: Visit, port: int) -> Listener:
    network, key = visit.settings.network, certificate.new_key()
    endorsed = certificate.endorse(
        visit.identity, network.name, certificate.public_hash(key), time.time(), CERTIFICATE_SECONDS
    )
    service = Service(visit.identity.address, network.name, visit.settings.bridge, _refuse, lambda _who, _said: None)
    return await Listener.start(network.host, port, Certificate(key, certificate.issue(key, endorsed)), service)


async def _dialled(visit: Visit, validator: Whereabouts, at: tuple[int, ...]) -> Reached | None:
    """What `validator` found; None if it does not say."""
    try:
        answer = await ask(visit.pool, validator, ReachCall(at[:16]), _reached, DIAL_BACK_SECONDS)
    except RetryElsewhere:
        return None
    return answer if len(answer.problems) == len(at[:16]) else None


async def _refuse(_stream: Stream) -> None:
    raise RetryElsewhere("This is only a check of the connection.", status=503, code="check")


def _behind_provider() -> bool:
    """Whether this machine itself has an address of a provider's NAT."""
    own = interface.outward()
    return own is not None and ipaddress.IPv4Address(own) in CGNAT
