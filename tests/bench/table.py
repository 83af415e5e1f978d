"""The report as text and as JSON. It computes nothing but medians."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench.figures import BUDGETS, FIGURES, PLAIN, STREAM, Budget, Round, values
from tests.bench.systems import Memory

WIDTH = 38
COLUMN = 17

Taken = Mapping[str, Mapping[str, Memory]]
"""By system and part."""


def text(systems: Sequence[str], rounds: Sequence[Round], memory: Taken, together: int) -> str:
    """Figures by system (median of the rounds), memory, and the budgets; so many tokens left the mock in one piece."""
    lines = [" " * WIDTH + "".join(f"{name:>{COLUMN}}" for name in systems)]
    for figure in FIGURES:
        cells = [f"{_number(statistics.median(values(figure, name, rounds)))} {figure.unit:2}" for name in systems]
        lines.append(f"{figure.name:{WIDTH}}" + "".join(f"{cell:>{COLUMN}}" for cell in cells))
    for label, kind in (("memory, RSS", "resident"), ("memory, PSS", "proportional")):
        cells = [f"{sum(getattr(part, kind) for part in memory[name].values()):,.0f} MB" for name in systems]
        lines.append(f"{label:{WIDTH}}" + "".join(f"{cell:>{COLUMN}}" for cell in cells))
    lines += ["", *_parts(memory), "", *_budgets(systems, rounds), "", *_notes(len(rounds), together)]
    return "\n".join(lines)


def tree(systems: Sequence[str], rounds: Sequence[Round], memory: Taken, together: int) -> dict[str, Any]:
    """The same for programs, round by round."""
    return {
        "figures": {
            figure.name: {"unit": figure.unit} | {name: values(figure, name, rounds) for name in systems}
            for figure in FIGURES
        },
        "memory": memory,
        "together": together,
        "budgets": {
            budget.name: {"bound": budget.bound, "than": budget.than, "rounds": (each := budget.each(rounds))}
            | {"value": statistics.median(each), "met": budget.met(statistics.median(each))}
            for budget in _possible(systems)
        },
    }


def _possible(systems: Sequence[str]) -> list[Budget]:
    return [budget for budget in BUDGETS if {budget.system, budget.than} <= set(systems)]


def _budgets(systems: Sequence[str], rounds: Sequence[Round]) -> list[str]:
    lines = [f"{'against the budgets':{WIDTH}}{'measured':>{COLUMN}}{'lowest–highest':>{COLUMN}}{'budget':>{COLUMN}}"]
    for budget in _possible(systems):
        each = budget.each(rounds)
        value = statistics.median(each)
        if budget.added:
            cells = f"{value:.2f} ms", f"{min(each):.2f}–{max(each):.2f}", f"≤ {budget.bound:g} ms"
        else:
            cells = f"{value:.1f} ×", f"{min(each):.1f}–{max(each):.1f}", f"≥ {budget.bound:g} ×"
        row = "".join(f"{cell:>{COLUMN}}" for cell in cells)
        lines.append(f"{budget.name:{WIDTH}}{row}   {'met' if budget.met(value) else 'missed'} (than {budget.than})")
    return lines


def _parts(memory: Taken) -> list[str]:
    parts = {part: taken for system in memory.values() if len(system) > 1 for part, taken in system.items()}
    sizes = (f"{part} {taken.resident:,.0f} ({taken.proportional:,.0f})" for part, taken in parts.items())
    return ["MB by role, RSS (PSS): " + ", ".join(sizes)]


def _notes(rounds: int, together: int) -> list[str]:
    return [
        f"Medians of {rounds} rounds, in each of which all systems take turns at each load. Plain answers have {PLAIN.tokens}",
        f"tokens, streamed ones {STREAM.tokens}; what streams from the mock comes {_together(together)}. RSS counts pages that",
        "processes share for each of them, PSS divides them. Every role is a node with a Ray cluster of its own.",
    ]


def _together(tokens: int) -> str:
    return "token by token" if tokens == 1 else f"in pieces of {tokens} tokens"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"
