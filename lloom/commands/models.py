"""Lists what the network serves: models, by how many executors, on what terms."""

from __future__ import annotations

import sys
from typing import Any, Final

import msgspec

from lloom.adapters.asking import Gateway
from lloom.commands.ask import through_gateway
from lloom.core.settings import Settings

COLUMNS: Final = ("model", "executors", "context", "price in/out per 1M", "does", "features")


def run(settings: Settings) -> int:
    """Asks the user's own running client node, or one brought up for the question."""
    return through_gateway(settings, lambda gateway: _show(settings, gateway))


def _show(settings: Settings, gateway: Gateway) -> int:
    models = gateway.models()
    if settings.model is not None:
        models = [model for model in models if model["id"] == settings.model]
    if settings.output == "json":
        sys.stdout.write(msgspec.json.encode(models).decode() + "\n")
    elif models:
        sys.stdout.write(table([COLUMNS, *(_row(model) for model in models)]))
    else:
        sys.stdout.write(f"nobody on this network serves {settings.model or 'a model'} right now\n")
    return 0


def table(rows: list[tuple[str, ...]]) -> str:
    """`rows` in columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    terms = model["lloom"]
    return (
        model["id"],
        str(terms["executors"]),
        str(terms["context"]),
        f"{_span(terms['input_price'])} / {_span(terms['output_price'])}",
        " ".join(terms["operations"]),
        " ".join(terms["features"]) or "-",
    )


def _span(price: dict[str, int]) -> str:
    low, high = price["min"], price["max"]
    return str(low) if low == high else f"{low}-{high}"
