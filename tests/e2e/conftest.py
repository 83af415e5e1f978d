"""One network of real processes for all tests that leave it as it was; started once, and only if such a test runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
from support import Process, environment, launch, remains

from lloom.core.identity import Identity, checksum
from tests.free_ports import free_port

MODEL = "smollm2-135m"
MOCK = "mock-small"
EMBEDDING = "mock-embedding"
HERE = Path(__file__).parent
RUNNING = ExitStack()
"""What ends the processes of the network."""


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Ends the network with the last test here: its 42 processes would take a fifth of a core from all tests that follow."""
    if nextitem is None or not nextitem.path.is_relative_to(HERE):
        RUNNING.close()


@dataclass
class Network:
    """A validator, two executors and a client. `ours` runs with a key from the environment, on 127.0.0.2, and has both models."""

    validator: Process
    ours: Process
    other: Process
    client: Process
    homes: Path
    gateway: str
    address: str
    """Of `ours`."""
    secret: str
    start_validator: Callable[[], Process]
    """As at first, in the same home and at the same port."""

    @property
    def executors(self) -> list[Process]:
        """Those that have not been stopped."""
        return [each for each in (self.ours, self.other) if each.popen.poll() is None]

    def lose_validator(self) -> None:
        """kill -9 of the guard, the node, and all of its processes."""
        self.validator.kill()

    def regain_validator(self) -> None:
        """The same validator again, once it is up."""
        self.validator = self.start_validator()
        self.validator.wait_for(" is up")

    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.gateway}/v1", api_key="none", max_retries=0, timeout=120)

    def async_openai(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.gateway}/v1", api_key="none", max_retries=0, timeout=120)


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    homes = tmp_path_factory.mktemp("homes")
    entry, first, second, gateway = free_port(), free_port(), free_port(), free_port()
    identity = Identity.generate()
    bootstrap = f"network.bootstrap=[127.0.0.1:{entry}]"
    with RUNNING as stack:
        place = stack.enter_context(remains())

        def start(name: str, *words: str, **env: str) -> Process:
            return stack.enter_context(launch(*words, f"home={homes / name}", env=environment(**env)))

        def start_validator() -> Process:
            return start("validator", "role=validator", f"network.port={entry}", TMPDIR=place)

        validator = start_validator()
        ours = start(
            "ours",
            "role=executor",
            "llm=[smollm2,mock]",
            "network.host=127.0.0.2",
            f"network.port={first}",
            bootstrap,
            LLOOM_PRIVATE_KEY=identity.secret.hex(),
        )
        other = start("other", "role=executor", "llm=[mock]", f"network.port={second}", bootstrap)
        client = start("client", "role=client", f"gateway.port={gateway}", bootstrap)
        for process in (validator, ours, other, client):
            process.wait_for(" is up")
        for process in (ours, other, client):  # who was up before its validator was asks again
            if not any("In the network" in line for line in process.lines):
                process.wait_for("In the network")
        yield Network(
            validator,
            ours,
            other,
            client,
            homes,
            f"http://127.0.0.1:{gateway}",
            checksum(identity.address),
            identity.secret.hex(),
            start_validator,
        )
