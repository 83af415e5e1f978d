"""Settings of accounting and chains as conf/ has them, for tests that change a few."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import yaml

from lloom.core.settings import AccountingSettings, Chain

CONF = Path(__file__).resolve().parents[1] / "conf"


def accounting(**changes: Any) -> AccountingSettings:
    """The group `accounting` with `changes`."""
    tree = yaml.safe_load((CONF / "config.yaml").read_text())["accounting"]
    return msgspec.structs.replace(msgspec.convert({**tree, "mode": "batched"}, AccountingSettings), **changes)


def lost(what: str, amount: int, bound: int) -> None:
    """Prints what a cheat costs whoever is cheated, beside the most that it may, and fails beyond that; in smallest units."""
    print(f"{what}: {amount} lost of at most {bound}, in smallest units")
    assert amount <= bound


def chain(name: str = "anvil", **changes: Any) -> Chain:
    """The chain of that name, its contract at an address of ours, with `changes`."""
    tree = yaml.safe_load((CONF / "chain" / f"{name}.yaml").read_text())
    return msgspec.convert({**tree, "contract": "0x" + "c0" * 20, **changes}, Chain)
