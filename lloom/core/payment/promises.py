"""How far a client's promises may go, over all its lanes of one token: newcomers, budget, deposit. It reads no clock."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from lloom.core.settings import AccountingSettings

SHARES: Final = 8
"""A lane gets no more than this part of what is left ahead of need: others want some, and it is theirs as long as they live."""


class Ask(Struct, frozen=True):
    """A ceiling that a lane wants: `least`, and `best` if there is room, so that it need not ask again soon."""

    executor: bytes
    number: int
    least: int
    best: int


class Totals(Struct, frozen=True):
    """What is promised already. `newcomers`: to those who have delivered nothing, and `recent`: to anybody, in the last 24 hours.

    `owing`: all ceilings less what the contract has paid on their lanes.
    """

    newcomers: int
    recent: int
    owing: int


class Raised(Struct, frozen=True):
    """The lane's ceiling from now on. Where it is less than what was asked for, `code` and `problem` say why."""

    ceiling: int
    code: str = ""
    problem: str = ""


def allow(
    ask: Ask, ceiling: int, newcomer: bool, totals: Totals, available: int | None, settings: AccountingSettings
) -> Raised:
    """The new ceiling of a lane that has `ceiling`. `available`: what lies in the contract; None: it has not been told yet."""
    if ask.least <= ceiling and ask.best <= ceiling:
        return Raised(ceiling)
    rooms = [(available - totals.owing if available is not None else 0, *_deposit(available))]
    if newcomer:
        left = settings.prepay.newcomers - totals.newcomers
        rooms.append((left, "prepay_limit", _NEWCOMERS))
    if settings.budget is not None:
        rooms.append((settings.budget - totals.recent, "budget", _BUDGET))
    room, code, problem = min(rooms, key=lambda room: room[0])
    least = max(ask.least, ceiling)
    if least > ceiling + max(0, room):
        return Raised(ceiling, code, problem)
    spare = max(0, ceiling + room - least)
    return Raised(max(least, min(ask.best, least + spare // SHARES)))


_NEWCOMERS = (
    "Executors that have delivered nothing yet hold all that accounting.prepay.newcomers allows within 24 hours."
)
_BUDGET = "The budget of 24 hours (accounting.budget) is spent."


def _deposit(available: int | None) -> tuple[str, str]:
    if available is None:
        return "chain_away", "No server of the chain has told yet what this node has paid in."
    if available <= 0:
        return "no_funds", "Nothing is paid in that could be spent: pay in with command=deposit."
    return "no_funds", "All that is paid in is promised already: pay in more with command=deposit."
