#!/usr/bin/env python3
"""A deterministic OpenAI-compatible server for tests and benchmarks: no key, no model, no cost.

    python scripts/mock_llm_server.py --port 8080
    curl http://127.0.0.1:8080/v1/chat/completions -d '{"messages":[{"role":"user","content":"Hello"}]}'

`GET /mock/stats` counts requests, active and cancelled ones. A request forces one fault by the header `x-mock-fault` or by
`@fault` at the end of the model's name: error, stall, pause, cut, wrong_usage, malformed, empty, none, or a status
such as 429.

A user's message says which tools the mock calls, one after another, by lines such as `call NAME {"argument": 1}`; each once
the ones before it were answered. Then the mock says what the last one gave. So a coding agent works without a model.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import uvloop

from lloom.adapters.llm.mock_server import Behaviour, MockServer
from lloom.core.settings import Faults


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on; 0: any free one (8080)")
    parser.add_argument("--tokens", type=positive, default=100, help="tokens of an answer without a limit (100)")
    parser.add_argument("--first-token-seconds", type=seconds, default=0.0, help="pause before the first token (0)")
    parser.add_argument("--token-seconds", type=seconds, default=0.0, help="pause between tokens (0)")
    parser.add_argument(
        "--together", type=positive, default=1, help="tokens of a stream that leave in one piece, before the pause (1)"
    )
    parser.add_argument("--error-rate", type=share, default=0.0, help="share of requests answered by a 500 (0)")
    parser.add_argument("--stall-rate", type=share, default=0.0, help="share of requests never answered (0)")
    parser.add_argument("--cut-rate", type=share, default=0.0, help="share of answers cut in the middle (0)")
    parser.add_argument(
        "--wrong-usage-rate", type=share, default=0.0, help="share of answers that claim ten times the tokens (0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="makes the faults repeatable (0)")
    return parser.parse_args()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < 3600:
        raise argparse.ArgumentTypeError("must be between 0 and 3600")
    return number


def share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError("must be between 0 and 1")
    return number


async def serve(options: argparse.Namespace) -> None:
    faults = Faults(
        error=options.error_rate,
        stall=options.stall_rate,
        cut=options.cut_rate,
        wrong_usage=options.wrong_usage_rate,
        seed=options.seed,
    )
    pauses = (options.first_token_seconds, options.token_seconds)
    behaviour = Behaviour(("mock",), options.tokens, *pauses, faults, together=options.together)
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    async with MockServer.run(behaviour, options.host, options.port) as server:
        print(f"{server.url}/v1", flush=True)
        await stop.wait()


def main() -> int:
    options = arguments()
    try:
        uvloop.run(serve(options))
    except OSError as error:
        print(f"cannot listen on {options.host}:{options.port}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
