"""Lists what the network serves: models, by how many executors, on what terms; or whom the client would ask for one, and why."""

from __future__ import annotations

import sys
from typing import Any, Final

import msgspec

from lloom.adapters.asking import Gateway
from lloom.commands.ask import through_gateway
from lloom.core.settings import Settings

VERDICT: Final = (
    "executor",
    "model",
    "verdict",
    "score",
    "price in/out",
    "first token p50/p95 s",
    "tokens/s",
    "success",
    "reputation",
    "load",
    "breaker",
    "affinity",
    "reason",
)
COLUMNS: Final = ("model", "executors", "context", "price in/out per 1M", "reputation", "does", "features")


def run(settings: Settings) -> int:
    """Asks the user's own running client node, or one brought up for the question."""
    return through_gateway(settings, lambda gateway: _show(settings, gateway))


def _show(settings: Settings, gateway: Gateway) -> int:
    if settings.explain is not None:
        return _explain(settings, gateway.routing(settings.explain))
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


def _explain(settings: Settings, verdicts: list[dict[str, Any]]) -> int:
    if settings.output == "json":
        sys.stdout.write(msgspec.json.encode(verdicts).decode() + "\n")
    else:
        sys.stdout.write(table([VERDICT, *map(_verdict, verdicts)]))
    return 0


def table(rows: list[tuple[str, ...]]) -> str:
    """`rows` in columns as wide as their widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"


def _verdict(told: dict[str, Any]) -> tuple[str, ...]:
    times = (_number(told[f"first_token_{share}"], 3) for share in ("p50", "p95"))
    return (
        f"{told['executor']} {told['endpoint']}",
        told["model"],
        told["verdict"],
        f"{told['score']:.2f}",
        f"{told['input_price']} / {told['output_price']}",
        " / ".join(times),
        _number(told["tokens_per_second"], 1),
        f"{told['success']:.2f} of {told['outcomes']:.0f}",
        f"{told['reputation']:.2f}",
        f"{told['load']} of {told['parallel']}",
        told["breaker"],
        "cached" if told["cached"] else "-",
        "; ".join(filter(None, (told["reason"], *told["doubts"]))) or "-",
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    terms = model["lloom"]
    meant = ", ".join(terms.get("alias_of", ()))
    return (
        f"{model['id']} = {meant}" if meant else model["id"],
        str(terms["executors"]),
        str(terms["context"]),
        f"{_span(terms['input_price'])} / {_span(terms['output_price'])}",
        _span(terms["reputation"]),
        " ".join(terms["operations"]),
        " ".join(terms["features"]) or "-",
    )


def _span(numbers: dict[str, float]) -> str:
    low, high = numbers["min"], numbers["max"]
    return str(low) if low == high else f"{low}-{high}"
