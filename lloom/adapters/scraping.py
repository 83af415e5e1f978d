"""A small HTTP server on loopback that shows a node's numbers to Prometheus. It serves nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from lloom.adapters.figures import Figures, Read
from lloom.core.errors import ConfigError

KIND = "text/plain; version=0.0.4; charset=utf-8"


@asynccontextmanager
async def scraped(read: Read, host: str, port: int) -> AsyncIterator[str]:
    """Serves `/metrics`, whose URL it gives; `port` 0: any. ConfigError if the address cannot be had."""
    registry = CollectorRegistry()
    registry.register(Figures(read))

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"content-type": KIND})

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    try:
        try:
            await site.start()
        except OSError as error:
            why = error.strerror or error
            raise ConfigError(f"metrics.port: cannot listen on {host} port {port} ({why}); choose another") from error
        where = runner.addresses[0]
        yield f"http://{f'[{where[0]}]' if ':' in where[0] else where[0]}:{where[1]}/metrics"
    finally:
        await runner.cleanup()
