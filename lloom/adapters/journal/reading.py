"""A journal as another program reads it, whether or not its node runs. It never writes and takes no lock."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lloom.adapters.journal.file import SCHEMA
from lloom.core.errors import ConfigError, LloomError
from lloom.core.identity import NodeId, parse_address
from lloom.core.settings import Settings


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection | None]:
    """The journal at `path` as it is at the first read; None if there is none. ConfigError if another version wrote it,
    LloomError if it cannot be read.
    """
    if not path.exists():
        yield None
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)) as db:
            if db.execute("PRAGMA user_version").fetchone() != (SCHEMA,):
                raise ConfigError(f"The journal {path} was written by another version of Lloom.")
            db.execute("BEGIN")
            yield db
    except sqlite3.Error as error:
        raise LloomError(f"The journal {path} cannot be read: {error}.") from error


class Found(NamedTuple):
    """A journal on this machine: of which node, on which chain (empty: of what nobody pays)."""

    path: Path
    chain: str
    owner: NodeId


def journals(settings: Settings) -> list[Found]:
    """Those of the role's home; their names tell whose they are, so no key is needed."""
    folder = Path(settings.home).expanduser() / settings.role
    found = [
        re.fullmatch(r"ledger-(.+)-(0x[0-9a-fA-F]{40})\.sqlite", path.name) for path in sorted(folder.glob("ledger-*"))
    ]
    return [
        Found(folder / each[0], "" if each[1] == "off" else each[1], parse_address(each[2])) for each in found if each
    ]
