"""Asks validators whether this executor can be dialled. It never believes that it cannot be before one of them has tried."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from loguru import logger

from lloom.adapters.anchors.inquiry import Whereabouts, ask
from lloom.adapters.dht.addresses import Address, parse
from lloom.adapters.routing.pool import Pool
from lloom.core.errors import RetryElsewhere
from lloom.core.identity import checksum
from lloom.core.messages import ReachCall, Reached, decoder

PORTS: Final = 16
"""As many as one `ReachCall` takes."""
ANSWER_SECONDS: Final = 60.0
"""For all ports of one call, silent ones among them."""

_reached: Final = decoder(Reached)


@dataclass(frozen=True, slots=True)
class Reach:
    """What the validators that answered found."""

    ports: frozenset[int]
    """Those at which at least one of them reached us."""
    host: str | None
    """Where most of those that reached us did so."""


async def reach(
    pool: Pool, validators: Collection[Whereabouts], ports: Collection[int], fits: Callable[[Address], bool]
) -> Reach | None:
    """Which of our `ports` can be dialled; None if no validator says. Further ones than `PORTS` are like the first.

    `fits`: whether an address makes sense in this network; a validator may say anything.
    """
    asked = tuple(sorted(ports))[:PORTS]
    answers = [answer for answer in await asyncio.gather(*(_ask(pool, each, asked) for each in validators)) if answer]
    if not answers:
        return None
    open_ = {port for answer in answers for port, problem in zip(asked, answer.problems, strict=False) if not problem}
    if asked[0] in open_:
        open_ |= set(ports) - set(asked)
    hosts = [answer.host for answer in answers if "" in answer.problems and _makes_sense(answer.host, fits)]
    return Reach(frozenset(open_), max(hosts, key=hosts.count, default=None))


def _makes_sense(host: str, fits: Callable[[Address], bool]) -> bool:
    address = parse(host)
    return address is not None and fits(address)


async def _ask(pool: Pool, validator: Whereabouts, ports: tuple[int, ...]) -> Reached | None:
    try:
        return await ask(pool, validator, ReachCall(ports), _reached, ANSWER_SECONDS)
    except RetryElsewhere as error:
        logger.debug("{} could not say whether we are reached: {}", checksum(validator[0]), error)
        return None
