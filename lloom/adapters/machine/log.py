"""What is logged, where to and in which form. It never shows a traceback or a stranger's words unless somebody is debugging.

Exceptions of other packages may quote what they worked on, prompts among it: their text appears from DEBUG on only.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from loguru import logger

from lloom.core.errors import ConfigError, LloomError
from lloom.core.settings import LogSettings

if TYPE_CHECKING:
    from loguru import Record

QUIET: Final = MappingProxyType(
    {
        "LiteLLM": logging.CRITICAL,  # logs whole requests, prompts and all, when they fail
        "rpcudp": logging.ERROR,  # a warning for every datagram that gets no answer
        "kademlia": logging.ERROR,
        "uvicorn": logging.WARNING,
        "httpx": logging.WARNING,
        "httpcore": logging.WARNING,
        "aiohttp": logging.WARNING,
        "openai": logging.WARNING,
        "urllib3": logging.WARNING,
        "asyncio": logging.WARNING,
        "web3": logging.WARNING,
        "ray": logging.WARNING,
    }
)
"""Packages whose logs pass from this level on only, whatever ours is."""

_HUMAN: Final = (
    "<green>{time:HH:mm:ss.SSS}</green> <level>{level: <7}</level> <cyan>{extra[process]}</cyan> {extra[text]}"
)
REQUEST: Final[ContextVar[str]] = ContextVar("request")
"""The id of the request that a task works for: each of its lines bears it. (loguru's `contextualize` takes ten times as long.)"""

_LEVELS: Final = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def configure(settings: LogSettings, process: str, lines: Callable[[str], None] | None = None) -> None:
    """Sets up logging for this process, once: in the driver, and first thing in every actor. `process` names it in each line.

    `lines` takes the finished lines instead of standard error. ConfigError if the file cannot be written.
    """
    debugging = settings.level in ("TRACE", "DEBUG")
    shown = _json if settings.format == "json" else _human
    logger.remove()
    logger.configure(extra={"process": process}, patcher=_of_a_request)
    logger.add(lines or sys.stderr, level=settings.level, format=shown(debugging), backtrace=False, diagnose=False)
    if settings.file is not None:
        _add_file(settings, process, debugging)
    _intercept()
    threading.excepthook = _thread_failed


def _add_file(settings: LogSettings, process: str, debugging: bool) -> None:
    assert settings.file is not None
    path = Path(settings.file)
    try:
        logger.add(
            path.with_name(f"{path.stem}-{process}{path.suffix}"),  # rotation by several processes would lose lines
            level=settings.level,
            format=_json(debugging),
            rotation=settings.file_bytes,
            retention=settings.files,
            backtrace=False,
            diagnose=False,
        )
    except OSError as error:
        raise ConfigError(f"log.file: {path} cannot be written: {error.strerror}") from error


def _of_a_request(record: Record) -> None:
    request = REQUEST.get(None)
    if request is not None:
        record["extra"]["request"] = request


def _human(debugging: bool) -> Callable[[Record], str]:
    """A line for people: with a request's id where there is one; the traceback only when debugging."""

    def template(record: Record) -> str:
        line = _HUMAN + (" <dim>{extra[request]}</dim>" if "request" in record["extra"] else "")
        text = record["message"]
        if record["exception"] is not None and not debugging:
            text += f": {_cause(record['exception'].value)}"
        # A peer's words must not move the cursor of the operator's terminal, nor forge a line.
        record["extra"]["text"] = _CONTROL.sub(lambda m: repr(m[0])[1:-1], text)
        return line + ("\n{exception}\n" if debugging and record["exception"] is not None else "\n")

    return template


def _json(debugging: bool) -> Callable[[Record], str]:
    """One object a line. The places of a traceback are always in it."""

    def template(record: Record) -> str:
        extra = {k: str(v) for k, v in record["extra"].items() if k not in ("line", "text")}
        line = {"time": record["time"].isoformat(), "level": record["level"].name, "name": record["name"]}
        line |= {**extra, "message": record["message"]}
        if record["exception"] is not None:
            error = record["exception"].value
            line["error"] = str(error) if debugging else _cause(error)
            line["traceback"] = "".join(traceback.format_tb(record["exception"].traceback))
        record["extra"]["line"] = json.dumps(line)
        return "{extra[line]}\n"

    return template


def _cause(error: BaseException | None) -> str:
    """The type, and the words only if they are ours or the system's."""
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, LloomError | OSError) else name


class _Intercept(logging.Handler):
    """Hands the standard library's records to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):  # a slip in somebody's log line must not become an error of ours
            message = str(record.msg)
        level = record.levelname if record.levelname in _LEVELS else record.levelno
        package = record.name

        def named(target: Record) -> None:
            target["name"] = package

        logger.patch(named).opt(exception=record.exc_info).log(level, "{}: {}", package, message)


def _intercept() -> None:
    logging.basicConfig(handlers=[_Intercept()], level=logging.INFO, force=True)
    for package, level in QUIET.items():
        logging.getLogger(package).setLevel(level)


def _thread_failed(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        name = args.thread.name if args.thread else "unnamed"
        logger.opt(exception=args.exc_value).error("thread {} ended by an exception", name)
