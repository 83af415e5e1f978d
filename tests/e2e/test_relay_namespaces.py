"""An executor behind a router, reached through validators: real nodes, each in a network namespace of its own."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from namespaces import CLIENT, ROUTER, VALIDATORS, Machines, NotPermitted, machines
from support import Process, environment, launch, remains

from lloom.core.identity import Identity, checksum

pytestmark = pytest.mark.timeout(400)

PORT = 9000
METRICS = 9464
GATEWAY = 8000
MODEL = "mock-small"
SETTLED_SECONDS = 60
"""A worker tries a validator that is back again after 30 s at the latest."""
QUESTION = {"model": MODEL, "messages": [{"role": "user", "content": "Who is there?"}], "max_tokens": 4}


@dataclass
class Hidden:
    """Two validators, a client, and an executor that nobody can dial."""

    at: Machines
    client: Process
    executor: Process
    validators: list[Process]
    start_validator: Callable[[int], Process]

    def ask(self) -> str:
        """The answer to a question; AssertionError if there is none."""
        with self.at.inside("client"):
            answer = httpx.post(f"http://127.0.0.1:{GATEWAY}/v1/chat/completions", json=QUESTION, timeout=60)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    def figure(self, machine: str, name: str) -> float:
        """One of the numbers that a node there shows to Prometheus; -1 if it does not."""
        try:
            with self.at.inside(machine):
                page = httpx.get(f"http://127.0.0.1:{METRICS}/metrics", timeout=5).text
        except httpx.TransportError:
            return -1
        found = re.search(rf"^lloom_{name} (\S+)$", page, re.MULTILINE)
        return float(found[1]) if found else -1

    def settle(self) -> None:
        """Waits until both validators relay to the executor, and offer that."""

        def settled() -> bool:
            machines = [f"validator-{number}" for number in range(len(self.validators))]
            figures = ("relay_workers", "catalogue_relayed", "catalogue_executors")
            return all(self.figure(each, name) == 1 for each in machines for name in figures)

        until(settled)

    def cut(self, number: int) -> None:
        """Kills a validator: connections through it are lost, and nobody says goodbye."""
        self.validators[number].kill()

    def restore(self, number: int) -> None:
        """The same validator again."""
        self.validators[number] = self.start_validator(number)
        self.validators[number].wait_for(" is up")


@pytest.fixture
def hidden(tmp_path: Path) -> Iterator[Hidden]:
    with ExitStack() as stack:
        try:
            at = stack.enter_context(machines())
        except NotPermitted as error:
            pytest.skip(f"no network namespaces here ({error})")
        place = stack.enter_context(remains())
        identities = [Identity.generate() for _ in VALIDATORS]
        known = [f"{checksum(key.address)}@{host}:{PORT}" for key, host in zip(identities, VALIDATORS, strict=True)]

        def start(machine: str, *words: str, **env: str) -> Process:
            common = ("network=public", f"network.bootstrap=[{','.join(known)}]", f"home={tmp_path / machine}")
            with at.inside(machine):
                return stack.enter_context(launch(*words, *common, env=environment(**env)))

        def start_validator(number: int) -> Process:
            words = ("role=validator", f"network.port={PORT}", f"network.advertise={VALIDATORS[number]}")
            secret = identities[number].secret.hex()
            env = {"LLOOM_PRIVATE_KEY": secret, "TMPDIR": place}
            return start(f"validator-{number}", *words, f"metrics.port={METRICS}", **env)

        validators = [start_validator(number) for number in range(len(VALIDATORS))]
        executor = start("executor", "role=executor", "llm=[mock]", f"network.port={PORT}", f"metrics.port={METRICS}")
        client = start("client", "role=client", f"gateway.port={GATEWAY}")
        for process in (*validators, executor, client):
            process.wait_for(" is up")
        yield Hidden(at, client, executor, validators, start_validator)


def test_an_executor_behind_a_router_is_reached_through_either_relay_and_a_lost_one_costs_no_request(
    hidden: Hidden,
) -> None:
    hidden.settle()
    assert not dialled(hidden, ROUTER), "nobody gets through the router"
    assert hidden.ask()
    until(lambda: hidden.figure("executor", "dht_peers") == 2 and hidden.figure("validator-0", "dht_peers") == 1)
    for number in range(2):
        hidden.cut(number)
        for _ in range(5):
            assert hidden.ask()
        if number == 0:
            hidden.restore(number)
            hidden.settle()
    assert CLIENT not in "\n".join(hidden.executor.lines), "it never saw who asks"


def dialled(hidden: Hidden, host: str) -> bool:
    """Whether a client gets through to the executor's port there."""
    try:
        with hidden.at.inside("client"):
            httpx.get(f"http://{host}:{PORT}", timeout=1)
    except httpx.ConnectTimeout:
        return False
    except httpx.TransportError:
        return True
    return True


def until(condition: Callable[[], bool]) -> None:
    """Looks again and again: nobody tells other processes when a network has settled."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the network did not settle"
        time.sleep(0.2)
