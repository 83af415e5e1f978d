"""Lloom beside the mock it asks, LiteLLM's proxy and vllm-router, in one run: `just bench` prints a table. See `--help`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import msgspec

from tests.bench import dht, load, table
from tests.bench.figures import LOADS, Load, Round
from tests.bench.load import Incomplete, Job, Sample
from tests.bench.peers import install, proxy, router
from tests.bench.systems import NotStarted, System, lloom, mock

CORES = 2
ROUNDS, SECONDS = 7, 2.0
QUICK_ROUNDS, QUICK_SECONDS = 3, 0.7
TOGETHER = 32
"""Tokens that leave the mock in one piece. Lloom asks for a stream whatever its caller wants, LiteLLM's proxy for a whole answer
where nobody wants a stream; one by one, 16 tokens take the mock 0.2 ms of the machine that is measured, together 0.1."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="just bench", description=__doc__, epilog="just bench dht measures discovery."
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_ROUNDS} short rounds: rough figures in two minutes"
    )
    parser.add_argument("--rounds", type=_count, help=f"rounds in which all systems take turns ({ROUNDS})")
    parser.add_argument(
        "--no-peers", action="store_true", help="leave out LiteLLM's proxy and vllm-router, which have to be installed"
    )
    parser.add_argument(
        "--together", type=_count, default=TOGETHER, help=f"tokens that leave the mock in one piece ({TOGETHER})"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures, round by round, to a file")
    return parser.parse_args()


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("must be from 1 to 1000")
    return number


def say(message: str) -> None:
    """Progress, for whoever waits."""
    print(message, file=sys.stderr, flush=True)


def start(stack: ExitStack, wanted: argparse.Namespace) -> list[System]:
    """All systems, running; `stack` stops them."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lloom-bench-", ignore_cleanup_errors=True)))
    if not wanted.no_peers:
        say("preparing LiteLLM's proxy and vllm-router in .venv-bench (800 MB at the first run) ...")
        install()
    say("starting the mock, a local chain, and a network of three nodes ...")
    upstream = stack.enter_context(mock(wanted.together))
    systems = [upstream, *stack.enter_context(lloom(upstream.port, folder))]
    if not wanted.no_peers:
        say("starting LiteLLM's proxy and vllm-router ...")
        systems.append(stack.enter_context(proxy(upstream.port, folder)))
        systems.append(stack.enter_context(router(upstream.port, folder)))
    return systems


def measure(system: System, load_: Load, seconds: float) -> Sample:
    """One system under one load."""
    job = Job(system.port, system.model, load_.stream, load_.clients, load_.tokens, seconds, system.key)
    try:
        return load.run(job)
    except Incomplete as error:
        raise Incomplete(f"{system.name}, {load_.name}: {error}") from None


def play(systems: Sequence[System], rounds: int, seconds: float) -> list[Round]:
    """All rounds. Each begins with another system, so that none is always the first after a pause."""
    for system in systems:
        say(f"warming up {system.name} ...")
        for each in LOADS:
            measure(system, each, seconds / 2)
    played: list[Round] = []
    for number in range(rounds):
        say(f"round {number + 1} of {rounds} ...")
        turn = [*systems[number % len(systems) :], *systems[: number % len(systems)]]
        played.append({(system.name, each.name): measure(system, each, seconds) for each in LOADS for system in turn})
    return played


def main() -> int:
    if sys.argv[1:2] == ["dht"]:
        return dht.main(sys.argv[2:])
    wanted = arguments()
    signal.signal(signal.SIGTERM, _stop)
    if hasattr(os, "sched_setaffinity"):
        # Every process started from here has the same two.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    rounds = wanted.rounds or (QUICK_ROUNDS if wanted.quick else ROUNDS)
    try:
        with ExitStack() as stack:
            systems = start(stack, wanted)
            played = play(systems, rounds, QUICK_SECONDS if wanted.quick else SECONDS)
            memory = {system.name: system.memory() for system in systems}
            say("stopping ...")
    except NotStarted as error:
        say(f"a system did not start: {error}")
        return 1
    except Incomplete as error:
        say(
            "\n".join(
                [f"nothing is compared, because an answer was not complete: {error}", *getattr(error, "__notes__", [])]
            )
        )
        return 1
    except KeyboardInterrupt:
        return 130
    names = [system.name for system in systems]
    print(table.text(names, played, memory, wanted.together))
    if wanted.json is not None:
        report = table.tree(names, played, memory, wanted.together)
        wanted.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    return 0


def _stop(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
