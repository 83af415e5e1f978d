"""Whether Ray could start here: its version, memory, and a cluster started for a moment. It spawns no actor."""

from __future__ import annotations

import asyncio
import shutil
from importlib import metadata
from pathlib import Path
from typing import Final

from lloom.actors import cluster
from lloom.adapters.machine.daemon import DaemonThread
from lloom.core.errors import ConfigError
from lloom.core.finding import Finding, ok, problem, warning
from lloom.core.settings import RaySettings

MEMORY_BYTES: Final = 2 << 30
"""A node with one worker takes about 1.5 GB, Ray's own processes among it."""
START_SECONDS: Final = 30.0
"""It takes 2 to 10. A diagnosis should not take a minute, whatever ray.start_seconds allows."""
SHARED: Final = Path("/dev/shm")  # noqa: S108 (where Ray's object store is, not a file of ours)


def memory(settings: RaySettings) -> list[Finding]:
    """Free memory, and room for the object store."""
    free = _available()
    found = [
        ok("memory", f"{free / (1 << 30):.1f} GB free")
        if free >= MEMORY_BYTES
        else warning("memory", f"{free / (1 << 30):.1f} GB free, where a node takes up to 2", "end something else")
    ]
    room = shutil.disk_usage(SHARED).free if SHARED.is_dir() else 0
    if room < settings.object_store:
        need = f"{settings.object_store >> 20} MB are needed"
        found.append(
            warning(
                str(SHARED), f"{room >> 20} MB free, {need}: Ray uses the disk instead", "docker run --shm-size=256m …"
            )
        )
    return found


async def start(settings: RaySettings, folder: Path, running: int | None) -> Finding:
    """Starts a cluster in `folder` and ends it, unless the node runs, which has one."""
    version = f"Ray {metadata.version('ray')}"
    if running is not None:
        return ok("Ray", f"{version}: the cluster of the running node is up")
    thread = DaemonThread("ray")
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(min(START_SECONDS, settings.start_seconds)):
            await thread.run(lambda: cluster.start(settings, folder))
            seconds = loop.time() - began
            await thread.run(cluster.stop)
    except ConfigError as error:
        return problem("Ray", f"{version}: {error}", "log.level=DEBUG tells more; is a Ray of another version running?")
    except TimeoutError:
        advice = "is this machine busy, or short of memory? ray.start_seconds sets how long a node waits"
        return problem("Ray", f"{version} did not start within {START_SECONDS:g} s", advice)
    return ok("Ray", f"{version} starts in {seconds:.1f} s")


def _available() -> int:
    """Bytes that can be had without swapping (proc(5))."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
