"""The words after `python -m lloom`, made ready for Hydra. It never composes: it quotes, refuses and completes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Final, get_args

from msgspec.structs import fields

from lloom.core.configuration.wording import listed
from lloom.core.errors import ConfigError
from lloom.core.settings import Role, Settings

TEXTS: Final = frozenset(
    {"prompt", "model", "explain", "demo.prompt", "home", "identity.path", "log.file", "network.name", "amount"}
)
"""Taken literally: no comma, quote, brace or letter in them means anything to Hydra."""

LISTS: Final = frozenset({"llm", "chain", "network.bootstrap", "routing.executors"})
"""May be written without brackets."""

_FLAGS: Final = {
    **dict.fromkeys(("--help", "-h", "--hydra-help", "--resolve", "--shell-completion", "-sc", "--version"), False),
    **dict.fromkeys(("--cfg", "-c", "--package", "-p", "--config-dir", "-cd"), True),
}
"""The flags we let through, and whether a word follows that belongs to them."""

_ANSWERS: Final = {"--help", "-h", "--hydra-help", "--cfg", "-c"}
_COMPLETES: Final = {"--shell-completion", "-sc"}
_WITHOUT_SAYING: Final[dict[str, Role]] = {
    "ask": "client",
    "models": "client",
    "keygen": "client",
    "key": "client",
    "deploy": "client",
    "deposit": "client",
    "settle": "executor",
}
"""Commands of one role, or that do for any role what they do for this one."""

COMPLETION: Final = r"""
_lloom_complete() {
    local line=${COMP_LINE:0:COMP_POINT}
    [[ $line =~ ^[[:space:]]*([^[:space:]]*python[0-9.]*)[[:space:]]+-m[[:space:]]+lloom[[:space:]]+(.*)$ ]] || return 0
    local python=${BASH_REMATCH[1]} words=${BASH_REMATCH[2]} word=${line##*[[:space:]]} choice
    [[ $words == *role=* ]] || words="role=client $words"
    # Readline replaces only what follows the last of its word breaks, usually = or :
    local kept=${word%"${word##*[=:]}"}
    while IFS= read -r choice; do
        [[ $choice == "$word"* ]] && COMPREPLY+=("${choice#"$kept"}")
    done < <(COMP_LINE="lloom $words" "$python" -m lloom --shell-completion query=bash 2>/dev/null | tr ' ' '\n')
}
complete -o nospace -o default -F _lloom_complete python python3
"""


def answer(words: Sequence[str], version: str) -> str | None:
    """What can be said without a configuration: the version, the completion script. None: nothing of that was asked."""
    if "--version" in words:
        return f"lloom {version}"
    if _COMPLETES & set(words):
        shells = [word.removeprefix("install=") for word in words if word.startswith("install=")]
        if shells == ["bash"]:
            return COMPLETION.strip()
        if shells:
            raise ConfigError(
                f'there is no completion for {shells[0]}, only for bash: install=bash, within eval "$(…)"'
            )
    return None


def rewrite(words: Sequence[str]) -> list[str]:
    """The same words as Hydra must see them: free text quoted, lists in brackets, a role where it goes without saying.

    ConfigError for a flag we do not let through, a word that is no `key=value`, and a missing role.
    """
    flags = _flags(words)
    given: dict[str, str | None] = {}
    settings = []
    for word in (word for position, word in enumerate(words) if position not in flags):
        mark, key, value = _parts(word)
        given[key] = value
        settings.append(word if value is None else f"{mark}{key}={_value(key, value)}")
    if "role" not in given and not _COMPLETES & set(words):
        settings.append(f"role={_role(set(words), given)}")
    # Flags first: argparse takes settings only in one run.
    return [word for position, word in enumerate(words) if position in flags] + settings


def quoted(text: str) -> str:
    """`text` in Hydra's grammar, so that exactly `text` comes out: quotes, backslashes and `${` lose their meaning."""
    # First for OmegaConf, which would interpolate; then for Hydra, where backslashes count only before a quote.
    text = re.sub(r"(\\*)\$\{", lambda m: m[1] * 2 + r"\${", text)
    return "'" + re.sub(r"(\\*)('|\Z)", lambda m: m[1] * 2 + (r"\'" if m[2] else ""), text) + "'"


def _flags(words: Sequence[str]) -> set[int]:
    """The positions of flags and of the words that belong to them."""
    found: set[int] = set()
    for position, word in enumerate(words):
        if position in found or not word.startswith("-"):
            continue
        flag, equals, _ = word.partition("=")
        if flag not in _FLAGS:
            raise ConfigError(_unknown_flag(flag))
        found.add(position)
        if _FLAGS[flag] and not equals:
            found.add(position + 1)
    return found


def _unknown_flag(flag: str) -> str:
    if flag.startswith("--m") or flag == "-m":
        return f"{flag}: a node runs once; for several, start several (or role=demo)"
    if flag.lstrip("-") in {field.name for field in fields(Settings)}:
        return f"{flag}: settings have no dashes; write {flag.lstrip('-')}=…"
    near = difflib.get_close_matches(flag, _FLAGS, n=1)
    return f"{flag}: there is no such flag" + (f"; did you mean {near[0]}?" if near else "; --help tells what there is")


def _parts(word: str) -> tuple[str, str, str | None]:
    """`+`, key and value of a word; the value is None where one is deleted."""
    try:
        word.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            "the command line holds bytes that are not UTF-8; set a UTF-8 locale, or use prompt=-"
        ) from None
    found = re.fullmatch(r"(?s)(\+{0,2})([^=+~][^=]*)=(.*)", word)
    if found is None and not word.startswith("~"):
        if word in get_args(Role):
            raise ConfigError(f"{word!r} is no setting=value; did you mean role={word}?")
        raise ConfigError(
            f"{word[:40]!r} is no setting=value: no blanks around the =, "
            "and quotes around a value that has some: prompt='Why is …?'"
        )
    mark, key, value = found.groups() if found else ("", word, None)
    if key.lstrip("~").startswith(("hydra.", "hydra/")):
        raise ConfigError(f"{key}: how Hydra works here is not for the command line to change")
    return mark, key, value


def _value(key: str, value: str) -> str:
    if key in TEXTS:
        return quoted(value)
    if key in LISTS and not (value.startswith("[") and value.endswith("]")):
        return "[" + ",".join(quoted(part.strip()) for part in value.split(",") if part.strip()) + "]"
    return value


def _role(words: set[str], given: dict[str, str | None]) -> Role:
    """The role that goes without saying: what only asks is a client."""
    flags = {word.partition("=")[0] for word in words}
    if flags & _ANSWERS or "prompt" in given:
        return "client"
    if role := _WITHOUT_SAYING.get(given.get("command") or ""):
        return role
    raise ConfigError(f"say what to run: role={listed(get_args(Role))} (--help shows examples)")
