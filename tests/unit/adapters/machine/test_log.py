"""What reaches the terminal and the file, and what must not."""

from __future__ import annotations

import contextvars
import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from loguru import logger

from lloom.adapters.machine import log
from lloom.core.errors import ConfigError, PeerFault
from lloom.core.settings import LogSettings

Level = Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Puts logging back as it was: it belongs to the whole process."""
    root, hook = logging.getLogger(), threading.excepthook
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in log.QUIET}
    yield
    logger.remove()
    logger.configure(extra={})
    logger.add(sys.__stderr__)
    root.handlers[:], threading.excepthook = handlers, hook
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def settings(level: Level = "INFO", form: Literal["human", "json"] = "human", file: Path | None = None) -> LogSettings:
    return LogSettings(
        level=level, format=form, file=None if file is None else str(file), file_bytes=1_000_000, files=2
    )


def fail(error: Exception) -> None:
    try:
        raise error
    except Exception:
        logger.exception("it failed")


def test_a_line_for_people_names_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(settings(), "executor")
    logger.info("ready {}", 1)
    logger.debug("unseen")
    assert capsys.readouterr().err.split(maxsplit=1)[1] == "INFO    executor ready 1\n"


def test_no_traceback_and_no_strange_words_below_debug(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(settings(), "client")
    fail(ValueError("the prompt of somebody"))
    shown = capsys.readouterr().err
    assert shown.endswith("it failed: ValueError\n")
    assert shown.count("\n") == 1


def test_words_of_our_own_errors_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(settings(), "client")
    fail(PeerFault("a frame of impossible size"))
    assert capsys.readouterr().err.endswith("it failed: PeerFault: a frame of impossible size\n")


def test_debugging_shows_where_but_never_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(settings("DEBUG"), "client")

    def work(secret: str) -> None:
        raise ValueError(len(secret))

    try:
        work("ab" * 32)
    except ValueError:
        logger.exception("it failed")
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "ValueError: 64" in shown
    assert "abab" not in shown


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(settings(form="json"), "worker-0")
    logger.bind(request="r1").warning("über {}\n", "{braces}")
    fail(KeyError("a prompt"))
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["level"], first["process"], first["request"]) == ("WARNING", "worker-0", "r1")
    assert first["message"] == "über {braces}\n"
    assert second["error"] == "KeyError"
    assert "test_log.py" in second["traceback"]


def test_the_lines_of_a_request_bear_its_id(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(settings(), "client")

    def work() -> None:
        log.REQUEST.set("r1")
        logger.info("asked")

    contextvars.copy_context().run(work)
    logger.info("idle")
    assert [line.split(maxsplit=1)[1] for line in capsys.readouterr().err.splitlines()] == [
        "INFO    client asked r1",
        "INFO    client idle",
    ]


def test_an_actors_lines_go_where_its_node_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    sent: list[str] = []
    log.configure(settings(), "worker-0", sent.append)
    logger.info("ready")
    assert [line.split(maxsplit=1)[1] for line in sent] == ["INFO    worker-0 ready\n"]
    assert capsys.readouterr().err == ""


def test_a_file_gets_json_under_the_name_of_its_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(settings(file=tmp_path / "logs" / "node.log"), "client")
    logger.info("ready")
    assert json.loads((tmp_path / "logs" / "node-client.log").read_text())["message"] == "ready"
    assert "ready" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"log\.file"):
        log.configure(settings(file=tmp_path / "file" / "node.log"), "client")


def test_a_peers_words_cannot_forge_a_line_or_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(settings(), "client")
    logger.info("peer says {}", "bye\n00:00:00 INFO forged\x1b[2J")
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "\x1b" not in shown
    assert "bye\\n00:00:00 INFO forged\\x1b[2J" in shown


def test_other_packages_speak_through_us_and_the_noisy_ones_softly(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(settings("TRACE"), "client")
    logging.getLogger("somebody").warning("heard %s", "you")
    logging.getLogger("rpcudp.protocol").warning("no reply")
    logging.getLogger("LiteLLM").error("a whole prompt")
    logging.getLogger("somebody").warning("bad %d", "format")
    shown = capsys.readouterr().err
    assert "somebody: heard you" in shown
    assert "somebody: bad %d" in shown
    assert "no reply" not in shown
    assert "a whole prompt" not in shown


def test_a_thread_that_fails_leaves_no_traceback_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(settings(), "client")

    def work() -> None:
        raise ValueError("words of a stranger")

    thread = threading.Thread(target=work, name="worker")
    thread.start()
    thread.join()
    assert capsys.readouterr().err.endswith("thread worker ended by an exception: ValueError\n")
