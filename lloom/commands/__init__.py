"""What a user can run, one module each with `run(settings) -> exit status`. They are imported when run, not before."""

from __future__ import annotations

import importlib

from lloom.core.settings import Settings


def run(settings: Settings) -> int:
    """Runs the command that `settings` ask for; its exit status. A client with a prompt asks, whether or not it says so."""
    name = "ask" if settings.prompt is not None and settings.role == "client" else settings.command
    status: int = importlib.import_module(f"lloom.commands.{name}").run(settings)
    return status
