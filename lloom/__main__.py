"""`python -m lloom`: composes the configuration and runs the command. The only module that knows Hydra; it never does the work.

Exit status: 0; 1 for a command that failed; 2 for a configuration that cannot work; 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":  # an interrupted import would print a stack
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import hydra
from hydra.errors import HydraException
from loguru import logger
from msgspec.structs import replace
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from lloom import __version__, commands
from lloom.adapters.machine import log
from lloom.core.configuration import argv, checks, wording
from lloom.core.errors import ConfigError, LloomError
from lloom.core.settings import Settings

CONF: Final = Path(__file__).resolve().parent.parent / "conf"


def main(words: Sequence[str]) -> int:
    """Runs what the command line asks for; the exit status."""
    try:
        if text := argv.answer(words, __version__):
            print(text)
            return 0
        tree = compose(argv.rewrite(words))
        return 0 if tree is None else run(_absolute(checks.settings(tree)))
    except KeyboardInterrupt:
        return 130
    except ConfigError as error:
        return _fail(error, 2)
    except LloomError as error:
        return _fail(error, 1)


def compose(words: Sequence[str]) -> dict[str, Any] | None:
    """The tree that `words` make, resolved; None if Hydra itself answered (--help, --cfg). ConfigError if there is none."""
    kept: list[DictConfig] = []
    # Hydra would end the process and print the overrides, prompt and all, if the work were done in here.
    keep: Callable[[], None] = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(kept.append)
    typed = sys.argv[1:]
    sys.argv[1:] = words
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise, instead of printing and exiting
    try:
        keep()
        return _plain(kept[0]) if kept else None
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(wording.composition(str(error), str(error.__cause__ or ""), _choices)) from error
    finally:
        del os.environ["HYDRA_FULL_ERROR"]
        sys.argv[1:] = typed


def run(settings: Settings) -> int:
    """Runs the command; nothing it raises reaches the terminal as a traceback, unless somebody is debugging."""
    log.configure(settings.log, "lloom")
    try:
        return commands.run(settings)
    except LloomError:
        raise
    except Exception:  # noqa: BLE001  the last boundary there is
        logger.exception("this should not have happened (log.level=DEBUG shows where)")
        return 1


def _plain(tree: DictConfig) -> dict[str, Any]:
    plain: dict[str, Any] = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    return plain


def _choices(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def _absolute(settings: Settings) -> Settings:
    """The same with whole paths: the processes of a node work in other folders."""

    def whole(path: str) -> str:
        return str(Path(path).expanduser().absolute())

    file = settings.log.file
    return replace(
        settings,
        home=whole(settings.home),
        identity=replace(settings.identity, path=whole(settings.identity.path)),
        log=replace(settings.log, file=None if file is None else whole(file)),
    )


def _fail(error: LloomError, status: int) -> int:
    print(f"lloom: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
