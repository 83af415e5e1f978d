"""Shows what this node asked for or served, and what that cost: by its journals, by the contracts' events, or both compared."""

from __future__ import annotations

import asyncio
import csv
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from lloom.adapters.chain import deployment
from lloom.adapters.chain import history as past
from lloom.adapters.chain.rpc import Rpc
from lloom.adapters.journal import history, names
from lloom.adapters.journal.reading import Found, journals, reading
from lloom.adapters.machine import keystore
from lloom.adapters.machine.terminal import show
from lloom.commands.chains import urls
from lloom.commands.models import table
from lloom.core.errors import ConfigError
from lloom.core.identity import NodeId, parse_address
from lloom.core.payment import units
from lloom.core.payment.usage import Difference, Entry, Row, differences, rows
from lloom.core.settings import Chain, Settings
from lloom.core.visitors import payer

NUMBERS: Final = ("requests", "input tokens", "output tokens")
NAME_DIGITS: Final = 10
"""Of the hash of a model whose name is not known."""


def run(settings: Settings) -> int:
    """Exit status 0; with `source=both` 1 if the two differ."""
    if settings.source == "both" and settings.by in ("model", "day"):
        raise ConfigError(f"source=both: what is paid is not told by {settings.by}; compare by=peer or by=chain")
    found = journals(settings)
    ledger = list(_ledger(settings, found)) if settings.source != "chain" else []
    chain = asyncio.run(_chain(settings, found)) if settings.source != "ledger" else []
    if settings.source != "both":
        _print(settings, rows(ledger or chain, settings.by))
        return 0
    told, seen = rows(ledger, settings.by), rows(chain, settings.by)
    differ = differences(told, seen)
    _compare(settings, told, differ)
    return 1 if differ else 0


def _ledger(settings: Settings, found: Sequence[Found]) -> Iterable[Entry]:
    known = _names(found)
    for each in found:
        if settings.source == "both" and each.chain not in settings.chain:
            continue  # no chain that is read tells of it
        with reading(each.path) as db:
            if db is not None:
                gave = settings.role == "executor"
                yield from history.receipts(db, each.chain or "off", known.name, gave=gave)
                yield from history.payments(db, each.chain or "off", gave=gave)


async def _chain(settings: Settings, found: Sequence[Found]) -> list[Entry]:
    known = _names(found)
    owner = found[0].owner if found else payer(keystore.load(settings.identity, os.environ), settings).address
    entries: list[Entry] = []
    for name, chain in deployment.resolved(settings).chain.items():
        show(f"reading the events of {name} ...\n")
        entries += await _events(name, chain, owner, known, gave=settings.role == "executor")
    return entries


async def _events(name: str, chain: Chain, owner: NodeId, known: Names, *, gave: bool) -> list[Entry]:
    assert chain.contract is not None
    rpc = Rpc.open(name, chain, urls(chain))
    try:
        await rpc.survey()
        seen = [each async for each in past.events(rpc, chain, parse_address(chain.contract))]
        return list(past.entries(seen, owner, name, known.name, gave=gave))
    finally:
        await rpc.close()


class Names:
    """Models by their hashes."""

    def __init__(self, known: dict[bytes, str]) -> None:
        self._known = known

    def name(self, model: bytes) -> str:
        """As its executor calls it; the beginning of the hash if nobody said."""
        return self._known.get(model) or f"0x{model.hex()[:NAME_DIGITS]}…"


def _names(found: Sequence[Found]) -> Names:
    known: dict[bytes, str] = {}
    for each in found:
        with reading(each.path) as db:
            known |= names.known(db) if db is not None else {}
    return Names(known)


def _print(settings: Settings, found: Sequence[Row]) -> None:
    money = ("paid",) if settings.source == "chain" else ("cost", "paid")
    if settings.output == "json":
        _write(msgspec.json.encode(found).decode() + "\n")
    elif settings.output == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(Row.__struct_fields__)
        writer.writerows(msgspec.structs.astuple(row) for row in found)
    elif found:
        _write(table([(settings.by, "chain", *NUMBERS, *money), *(_cells(settings, row, money) for row in found)]))
    else:
        _write(f"this {settings.role} has no receipt yet\n")


def _compare(settings: Settings, told: Sequence[Row], differ: Sequence[Difference]) -> None:
    if settings.output != "text":
        _write(msgspec.json.encode({"ledger": told, "differences": differ}).decode() + "\n")
        return
    for each in differ:
        shown = [_amount(settings, each.chain, value) for value in (each.ledger, each.on_chain)]
        if each.what != "paid":
            shown = [str(each.ledger), str(each.on_chain)]
        _write(f"{each.key} on {each.chain}: {each.what} is {shown[0]} in the journal and {shown[1]} on chain\n")
    if not differ:
        total = sum(row.requests for row in told)
        _write(f"journal and chain agree on {total} requests in {len(told)} rows, to the token and the smallest unit\n")


def _cells(settings: Settings, row: Row, money: Sequence[str]) -> tuple[str, ...]:
    numbers = map(str, (row.requests, row.input_tokens, row.output_tokens))
    return (row.key or "-", row.chain, *numbers, *(_amount(settings, row.chain, getattr(row, each)) for each in money))


def _amount(settings: Settings, name: str, amount: int) -> str:
    """In whole tokens where the chain is configured."""
    chain = settings.chain.get(name)
    return str(amount) if chain is None else f"{units.show(amount, chain.decimals)} {chain.symbol}"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
