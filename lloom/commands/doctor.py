"""`command=doctor`: looks at everything that a node needs, says what is wrong and what to do. It never changes anything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import textwrap
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from lloom.actors import cluster, trial
from lloom.adapters.doctor import backends, chains, machine, network, ports
from lloom.adapters.machine import home, log, title
from lloom.adapters.machine.guard import STOP, guarded
from lloom.core.errors import ConfigError
from lloom.core.finding import Finding, healthy
from lloom.core.settings import Settings
from lloom.node import INTERRUPTED

MARGIN: Final = 10
"""Columns before what was found."""
NARROWEST: Final = 60

Show = Callable[[Finding], None]


def run(settings: Settings) -> int:
    """0 if there is no problem, else 1. Ray is tried within it, so all of it runs under the guard, as a node does."""
    if settings.log.level not in ("TRACE", "DEBUG"):  # the findings say it better
        log.configure(replace(settings.log, level="ERROR"), "lloom")
    title.show("lloom")
    return guarded(lambda folder: asyncio.run(_run(settings, folder)))


async def _run(settings: Settings, folder: Path) -> int:
    work = asyncio.ensure_future(_diagnose(settings, folder))
    asyncio.get_running_loop().add_signal_handler(STOP, work.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        return INTERRUPTED


async def _diagnose(settings: Settings, folder: Path) -> int:
    findings: list[Finding] = []
    async with contextlib.aclosing(check(settings, folder)) as checks:
        async for finding in checks:
            findings.append(finding)
            if settings.output == "text":
                _write(_line(finding))
    well = healthy(findings)
    if settings.output == "json":
        _write(msgspec.json.encode({"healthy": well, "findings": findings}).decode())
    else:
        _write(_summary(findings))
    return 0 if well else 1


async def check(settings: Settings, folder: Path) -> AsyncGenerator[Finding, None]:
    """Every finding as soon as it is there. `folder` is private to this run."""
    key, identity = machine.key(settings, os.environ)
    provider_keys = backends.take_keys(settings, os.environ)
    yield key
    yield machine.folder(settings)
    yield machine.files()
    try:
        running = home.running(settings)
    except (ConfigError, OSError):  # the folder's finding says it
        running = None
    for finding in ports.check(settings, running):
        yield finding
    async with contextlib.aclosing(network.check(settings, identity, running=running is not None)) as visit:
        async for finding in visit:
            yield finding
    async with contextlib.aclosing(chains.check(settings, identity, provider_keys)) as money:
        async for finding in money:
            yield finding
    for finding in (*await backends.check(settings, provider_keys), *trial.memory(settings.ray)):
        yield finding
    if running is None:
        cluster.prepare(settings.ray, folder, os.environ)
    yield await trial.start(settings.ray, folder, running)


def _line(finding: Finding) -> str:
    """Verdict, check and what was found; what to do on the next line."""
    width = max(shutil.get_terminal_size().columns, NARROWEST)
    text = f"{finding.verdict.ljust(MARGIN)}{finding.check}: {finding.found}"
    lines = textwrap.wrap(text, width, subsequent_indent=" " * MARGIN, break_on_hyphens=False)
    if finding.advice:
        lines += textwrap.wrap(
            finding.advice, width, initial_indent=f"{' ' * MARGIN}→ ", subsequent_indent=" " * (MARGIN + 2)
        )
    return "\n".join(lines)


def _summary(findings: list[Finding]) -> str:
    count = {verdict: sum(each.verdict == verdict for each in findings) for verdict in ("problem", "warning")}
    if not any(count.values()):
        return "\nall is well"
    told = [f"{number} {what}{'s' * (number != 1)}" for what, number in count.items() if number]
    return f"\n{', '.join(told)}"


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
