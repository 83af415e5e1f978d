"""One node in a folder at a time, and its note for the user's other commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lloom.adapters.machine import home
from lloom.core.errors import ConfigError
from lloom.core.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Only what a folder needs: the rest of the tree is not looked at."""

    class Few:
        home = str(tmp_path / "home")
        role = "client"

    return Few()  # type: ignore[return-value]


def test_a_second_node_in_the_same_folder_is_refused(settings: Settings) -> None:
    with home.only_one(settings), pytest.raises(ConfigError, match=r"already runs .*home="), home.only_one(settings):
        pass
    with home.only_one(settings):
        pass


def test_the_folder_of_a_killed_node_is_free_again(settings: Settings) -> None:
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    path = home.folder(settings) / "lock"
    with subprocess.Popen([sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(ConfigError), home.only_one(settings):
            pass
        holder.kill()
    with home.only_one(settings):
        pass


def test_the_note_is_there_as_long_as_the_gateway(settings: Settings) -> None:
    note = home.GatewayNote("http://127.0.0.1:8000", "0x1", 1, "")
    with home.announced(settings, note):
        assert home.running_gateway(settings) == note
    assert home.running_gateway(settings) is None


def test_a_note_that_is_none_counts_as_no_note(settings: Settings) -> None:
    (home.folder(settings) / "gateway.json").write_text("{")
    assert home.running_gateway(settings) is None


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(ConfigError, match="home="):
        home.folder(settings)
