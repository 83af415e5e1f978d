"""The exit status, and which module a command line ends up in."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from lloom import commands
from lloom.__main__ import main
from lloom.adapters.machine import log
from lloom.core.errors import CallerFault, ConfigError, RetryElsewhere
from lloom.core.settings import Settings


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "configure", lambda *_: None)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("the port is taken"), 2),
        (RetryElsewhere("nobody serves it"), 1),
        (CallerFault("no such model"), 1),
        (ValueError("a slip of ours"), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_command_raises_becomes_an_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, status: int
) -> None:
    def fail(_: Settings) -> int:
        raise error

    monkeypatch.setattr(commands, "run", fail)
    assert main(["role=client"]) == status
    if isinstance(error, ConfigError | RetryElsewhere | CallerFault):
        assert capsys.readouterr().err == f"lloom: {error}\n"


def test_the_status_of_the_command_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "run", lambda _: 7)
    assert main(["role=client"]) == 7


def test_hydra_leaves_the_command_line_as_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["lloom", "role=client", "prompt=it's"]
    monkeypatch.setattr(sys, "argv", typed[:])
    monkeypatch.setattr(commands, "run", lambda _: 0)
    assert main(typed[1:]) == 0
    assert sys.argv == typed


@pytest.mark.parametrize(
    ("words", "module"),
    [
        (["role=client"], "serve"),
        (["prompt=hello"], "ask"),
        (["role=client", "prompt=hello"], "ask"),
        (["command=ask", "prompt=-"], "ask"),
        (["command=models"], "models"),
        (["command=keygen", "role=executor"], "keygen"),
        (["role=demo", "prompt=hello"], "serve"),
        (["role=executor", "llm=[smollm2,openai]", "network.port=9001"], "serve"),
    ],
    ids=" ".join,
)
def test_every_command_line_finds_its_module(monkeypatch: pytest.MonkeyPatch, words: list[str], module: str) -> None:
    ran: list[str] = []
    for name in ("serve", "ask", "models", "keygen"):
        monkeypatch.setitem(
            sys.modules, f"lloom.commands.{name}", SimpleNamespace(run=lambda _, name=name: ran.append(name) or 0)
        )
    assert main(words) == 0
    assert ran == [module]


def test_paths_are_whole_before_other_processes_see_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []
    monkeypatch.setattr(commands, "run", lambda settings: seen.append(settings) or 0)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("LLOOM_HOME", raising=False)
    assert main(["role=client", "log.file=lloom.log"]) == 0
    assert seen[0].home == "/home/somebody/.lloom"
    assert seen[0].identity.path == "/home/somebody/.lloom/client/key"
    assert (seen[0].log.file or "").startswith("/")
