"""`just faults`: for each fault, at two executors of three and under load, what callers notice; status 1 if it is too much."""

from __future__ import annotations

import asyncio
import sys

from loguru import logger

from lloom.core import tokens
from tests.faults.load import Result
from tests.faults.scenarios import ALL, PARALLEL, REQUESTS, Scenario, play


def problem(scenario: Scenario, result: Result) -> str:
    """What callers notice that they must not; empty if nothing."""
    if result.count("wrong text", "cut"):
        return "a wrong text"
    if result.count("refused"):
        return "refused"
    if scenario.goes_on and result.count("error in band"):
        return "an error"
    return "too slow" if result.longest > scenario.budget else ""


def line(scenario: Scenario, result: Result) -> str:
    cells = (
        f"{scenario.name:<58}",
        f"{len(result.got):>8}",
        f"{result.count('whole'):>6}",
        f"{result.rescued:>8}",
        f"{result.count('error in band'):>8}",
        f"{result.count('refused'):>8}",
        f"{result.count('wrong text', 'cut'):>6}",
        f"{result.longest:>8.2f}",
    )
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Prints the table as it comes."""
    logger.remove()
    tokens.count("", "o200k_base")  # loads it
    print(
        f"{REQUESTS} requests for each fault, {PARALLEL} at once, every second one streamed; three executors, one of them well\n"
    )
    print(f"| {'fault':<58} | requests |  whole |  rescued | in band | refused | wrong | longest s |")
    print(f"|{'-' * 60}|---------:|-------:|---------:|--------:|--------:|------:|----------:|")
    problems = []
    for scenario in ALL:
        result = asyncio.run(play(scenario))
        print(line(scenario, result), flush=True)
        if found := problem(scenario, result):
            problems.append(f"{scenario.name}: {found} ({dict(result.details)})")
    print("\n".join(["", *problems]) if problems else "\nNo caller noticed more than it had to.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
