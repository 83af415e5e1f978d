"""Shared by all tests: unit tests get neither sockets nor Ray."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest

from lloom.actors.base import RECURSION_LIMIT

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("lloom", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("lloom")

UNIT = Path(__file__).parent / "unit"


@pytest.fixture(autouse=True)
def _stack() -> None:
    """As in a node: eth-account, used as an oracle, allows a hundred times the recursion that the stack can bear."""
    sys.setrecursionlimit(RECURSION_LIMIT)


@pytest.fixture(autouse=True)
def _unit_tests_touch_nothing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a unit test that opens an internet socket or starts Ray: it belongs elsewhere then."""
    if not request.path.is_relative_to(UNIT):
        return

    class NoSocket(socket.socket):
        def __init__(self, family: int = -1, *arguments: object, **options: object) -> None:
            if family in (-1, socket.AF_INET, socket.AF_INET6):
                pytest.fail("a unit test opened a socket")
            super().__init__(family, *arguments, **options)  # type: ignore[arg-type]

    def no_ray(*_arguments: object, **_options: object) -> NoReturn:
        pytest.fail("a unit test started Ray")

    monkeypatch.setattr(socket, "socket", NoSocket)
    if "ray" in sys.modules:
        monkeypatch.setattr(sys.modules["ray"], "init", no_ray)
