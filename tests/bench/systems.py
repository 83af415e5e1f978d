"""The systems under comparison as real processes, and the memory they take. It starts and stops; it measures no speed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from lloom.adapters.chain import anvil
from lloom.core.errors import ConfigError
from tests.e2e.support import ROOT, STOP_SECONDS, Process, environment, gone
from tests.free_ports import free_port

MODEL = "bench"
VIA_LITELLM = "bench-litellm"
PAID = "bench-paid"
MEGABYTE = 1_000_000

# The same server, as bytes through for nothing and for money, and through LiteLLM.
FREE = "bench:{context:8192}"
DEAR = "bench-paid:{context:8192,name:bench,input_price:1000000000000000,output_price:4000000000000000}"
LITELLM = (
    "+llm.litellm={{kind:litellm,provider:hosted_vllm,base_url:'{url}',key_env:null,parallel:64,requests_per_minute:null,"
    "tokens_per_minute:null,idle_seconds:60,options:{{}},models:{{bench-litellm:{{context:8192,name:bench}}}}}}"
)


class NotStarted(Exception):
    """Raised when a system cannot be installed or does not come up."""


@dataclass(frozen=True)
class Memory:
    """Megabytes."""

    resident: float
    """Pages that processes share count for each of them."""
    proportional: float
    """They are divided among them (Linux; elsewhere as `resident`)."""


@dataclass(frozen=True)
class System:
    """Something to load. `parts` are its processes by name, for the memory they take with all their children."""

    name: str
    port: int
    model: str
    parts: dict[str, Callable[[], psutil.Process]]
    key: str = "none"

    def memory(self) -> dict[str, Memory]:
        """What each part takes, with all its children."""
        return {name: _memory(find()) for name, find in self.parts.items()}


@contextmanager
def mock(together: int = 1) -> Iterator[System]:
    """The upstream of all others, alone; of its streams that many events leave in one piece."""
    command = [sys.executable, str(ROOT / "scripts/mock_llm_server.py"), "--port", "0", "--together", str(together)]
    with process(command, stdout=subprocess.PIPE) as popen:
        assert popen.stdout is not None
        with popen.stdout as stdout:
            url = stdout.readline().decode().strip()
            port = int(url.removesuffix("/v1").rpartition(":")[2])
            yield System("mock alone", port, MODEL, {"mock": lambda: psutil.Process(popen.pid)})


@contextmanager
def lloom(upstream: int, homes: Path) -> Iterator[list[System]]:
    """A network of a client and an executor that reaches `upstream` (a port) as bytes, free and for money, and through LiteLLM.

    Without anvil there is no money, and nobody who wants some.
    """
    entry, gateway = free_port(), free_port()
    url = f"http://127.0.0.1:{upstream}/v1"
    common = [
        f"network.bootstrap=[127.0.0.1:{entry}]",
        "network.name=bench",
        "ray.dashboard=false",
        "log.level=WARNING",
    ]
    with ExitStack() as stack:
        money = stack.enter_context(_money(homes / "client", homes / "executor"))
        offered = ",".join([FREE, DEAR] if money else [FREE])
        raw = ["llm=[vllm]", f"llm.vllm.base_url={url}", f"+llm.vllm.models={{{offered}}}"]
        roles = {
            "validator": ["role=validator", f"network.port={entry}", *common[1:]],
            "executor": ["role=executor", *raw, LITELLM.format(url=url), "network.port=0", *common, *money],
            "client": ["role=client", f"gateway.port={gateway}", *common, *money],
        }
        nodes = {name: stack.enter_context(node(*words, f"home={homes / name}")) for name, words in roles.items()}
        for name, each in nodes.items():
            try:
                each.wait_for(" is up")
            except AssertionError as error:
                raise NotStarted(f"{name}: {error}") from None
        stack.push(lambda _kind, error, _trace: _annotate(error, nodes))
        found = {name: _finder(each.popen.pid) for name, each in nodes.items()}
        models = {"Lloom": MODEL, "Lloom + LiteLLM": VIA_LITELLM} | ({"Lloom, paid": PAID} if money else {})
        yield [System(name, gateway, model, found) for name, model in models.items()]


@contextmanager
def _money(client: Path, executor: Path) -> Iterator[list[str]]:
    """The words that choose a local chain on which the client has paid in, and the executor has coin for its gas: any command
    gives it some. None where a chain cannot be had.
    """
    try:
        anvil.binary()
    except ConfigError:
        yield []
        return
    with anvil.started(31337) as url:
        words = ["chain=anvil", f"chain.anvil.rpc=[{url}]"]
        steps = [(client, "role=client command=deploy"), (client, "role=client command=deposit amount=5")]
        for home, command in [*steps, (executor, "role=executor command=settle")]:
            done = subprocess.run(
                [sys.executable, "-m", "lloom", *command.split(), *words, f"home={home}"],
                env=environment(),
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise NotStarted(f"{command}: {done.stderr.strip()}")
        yield words


@contextmanager
def node(*words: str) -> Iterator[Process]:
    """A `python -m lloom` that is starting, stopped at the end of the block."""
    started = Process.start(*words, env=environment())
    try:
        yield started
    finally:
        family = started.family()
        try:
            started.stop()
        except subprocess.TimeoutExpired:
            started.popen.kill()
        for member in gone(family):
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()


@contextmanager
def process(command: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A running command, ended with its children at the end of the block."""
    popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **options)  # type: ignore[call-overload]
    try:
        yield popen
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [psutil.Process(popen.pid), *psutil.Process(popen.pid).children(recursive=True)]
            popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                popen.wait(STOP_SECONDS)
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
        popen.wait(STOP_SECONDS)


def _annotate(error: BaseException | None, nodes: dict[str, Process]) -> None:
    """The nodes' last words belong to whatever went wrong while they ran."""
    if error is not None:
        for name, each in nodes.items():
            last = [line for line in [*each.lines, *each._queue.queue] if line][-3:]
            error.add_note(f"{name} (exit status {each.popen.poll()}): " + " | ".join(last))


def _finder(pid: int) -> Callable[[], psutil.Process]:
    return lambda: psutil.Process(pid)


def _memory(process: psutil.Process) -> Memory:
    resident = proportional = 0
    for member in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            found = member.memory_full_info()
            resident += found.rss
            proportional += getattr(found, "pss", found.rss)
    return Memory(resident / MEGABYTE, proportional / MEGABYTE)
