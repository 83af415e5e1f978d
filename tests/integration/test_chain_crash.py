"""kill -9 of the process that sends, at every point where it writes or speaks: the next one finishes the job, once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from chain_support import COIN, FINNEY, Local, watching

from lloom.adapters.journal.transactions import State

ROOT = Path(__file__).resolve().parents[2]
POINTS = [
    "after-add",
    "before-sign",
    "after-sign",
    "before-broadcast",
    "after-broadcast",
    "before-finish",
    "after-finish",
]


@pytest.mark.parametrize("point", POINTS)
async def test_a_killed_sender_s_job_arrives_exactly_once(local: Local, tmp_path: Path, point: str) -> None:
    executor, client = await local.person(), await local.client()
    await local.still()
    journal = tmp_path / "journal"
    words = [local.url, str(journal), client.secret.hex(), executor.secret.hex(), point]
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "integration")))
    victim = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("chain_victim.py")),
        *words,
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
    )
    _, errors = await asyncio.wait_for(victim.communicate(), 60)
    assert victim.returncode == -9, errors.decode()
    async with watching(journal, local.settings(), executor) as it:
        for _ in range(3):
            await it.chain.step()
            await local.mine()
        await it.chain.step()
        assert await it.state(1) is State.DONE
        assert len(await it.attempts(1)) == 1
        assert await it.chain.earned(executor.address, COIN) == FINNEY
    sent = await local.call("eth_getTransactionCount", "0x" + executor.address.hex(), "latest")
    assert int(sent, 16) == 1
