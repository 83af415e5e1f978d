"""The key goes from one process of the user to another, and nowhere else."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from lloom.adapters.machine import keyagent
from lloom.core.errors import ConfigError
from lloom.core.identity import Identity


async def test_an_actor_gets_the_nodes_key(tmp_path: Path) -> None:
    identity = Identity.generate()
    server = await keyagent.serve(tmp_path / "key", identity.secret)
    async with server:
        fetched = await asyncio.to_thread(keyagent.fetch, str(tmp_path / "key"))
    assert Identity(fetched).address == identity.address


async def test_only_the_user_may_open_the_socket(tmp_path: Path) -> None:
    async with await keyagent.serve(tmp_path / "key", b"secret"):
        assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


async def test_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await keyagent.serve(tmp_path / "key", b"secret"):
        monkeypatch.setattr(keyagent, "_user", lambda _link: 4242)
        with pytest.raises(ConfigError):
            await asyncio.to_thread(keyagent.fetch, str(tmp_path / "key"))


def test_without_an_agent_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="start the node again"):
        keyagent.fetch(str(tmp_path / "nobody"))
