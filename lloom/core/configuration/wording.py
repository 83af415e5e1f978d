"""Says in one sentence what is wrong with a configuration. It never decides whether something is: others raise, this words it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from msgspec import Struct, UnsetType
from msgspec.structs import fields

from lloom.core.settings import Settings

_PLAIN: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "a group of settings",
}


def keys() -> dict[str, Any]:
    """All settings as `dotted.key` → type, groups included; `*` stands for a name of one's own (`llm.*.base_url`)."""
    return dict(_walk(Settings, ""))


def _walk(kind: type[Struct], prefix: str) -> Iterator[tuple[str, Any]]:
    for field in fields(kind):
        key = prefix + field.name
        yield key, field.type
        inner = get_args(field.type) if isinstance(field.type, UnionType) else (field.type,)
        if get_origin(field.type) is dict:
            key += ".*"
            value = get_args(field.type)[1]
            inner = get_args(value) or (value,)
        for group in inner:
            if _is_group(group):
                yield from _walk(group, key + ".")


def _is_group(kind: Any) -> bool:
    return get_origin(kind) is dict or (isinstance(kind, type) and issubclass(kind, Struct))


def listed(words: Sequence[str], last: str = "or") -> str:
    """`a, b or c`."""
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else "nothing"


def unknown_key(key: str) -> str:
    """The sentence for a key that is none, with the ones that were perhaps meant."""
    names = key.split(".")
    # The names within llm are the user's own: take them as they stand.
    known = [_filled(pattern, names) for pattern, kind in keys().items() if not _is_group(kind)]
    same_end = [k for k in known if k.rpartition(".")[2] == names[-1]]
    near = dict.fromkeys(difflib.get_close_matches(key, known, n=3, cutoff=0.7) + same_end)
    hint = f"; did you mean {listed(list(near)[:3])}?" if near else "; conf/config.yaml explains all there are"
    return f"{key}: there is no such setting{hint}"


def _filled(pattern: str, names: list[str]) -> str:
    parts = pattern.split(".")
    return ".".join(names[i] if part == "*" and i < len(names) else part for i, part in enumerate(parts))


def invalid_value(message: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.network.port`" as "network.port: expected a whole number, got text"."""
    found = re.fullmatch(r"(?s)(.*?)(?: - at `(?:key in )?\$\.?(.*?)`)?", message)
    assert found is not None
    what, where = found[1].replace("`", ""), (found[2] or "").replace("[...]", ".*")
    if field := re.fullmatch(r"Object contains unknown field (.*)", what):
        return unknown_key(f"{where}.{field[1]}".removeprefix("."))
    if field := re.fullmatch(r"Object missing required field (.*)", what):
        return f"{where}.{field[1]}".removeprefix(".") + ": this setting is missing"
    if value := re.fullmatch(r"Invalid enum value (.*)", what):
        choices = [str(choice) for choice in _literals(keys().get(re.sub(r"\[\d+\]$", "", where)))]
        return f"{where}: {value[1]} is no choice; there are {listed(choices, 'and')}"
    what = re.sub(r" \| ", " or ", what)
    what = re.sub(r"\b(int|float|str|bool|null|array|object)\b", lambda m: _PLAIN[m[1]], what[:1].lower() + what[1:])
    return f"{where}: {what}" if where else what


def _literals(kind: Any) -> tuple[Any, ...]:
    """The values of a Literal, also of one within a tuple, that may be null or need not be said."""
    if get_origin(kind) in (Union, UnionType):
        kind = next(each for each in get_args(kind) if each not in (NoneType, UnsetType))
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
    return get_args(kind) if get_origin(kind) is Literal else ()


def composition(message: str, cause: str, choices: Callable[[str], Sequence[str]]) -> str:
    """The sentence for what Hydra or OmegaConf raised; `choices` lists those of a group."""
    if found := re.search(r"Could not (?:find|load) '([^'\n]+)/([^'\n]+)'", message):
        return f"{found[1]}={found[2]}: there is no such choice; there are {listed(choices(found[1]), 'and')}"
    if found := re.search(r"Could not override '(.+)'", message):
        if missing := re.search(r"full_key: llm\.([^.\s]+)$", cause, re.MULTILINE):
            return f"{found[1]}: the backend {missing[1]} is not chosen; choose it with llm=[{missing[1]}]"
        return unknown_key(found[1])
    if found := re.search(r"Ambiguous value for argument '(.+?)=(.*)'", message):
        return f"{found[1]}: one value is wanted here; write a list as {found[1]}=[{found[2]}], or quote the commas"
    if found := re.search(r"Environment variable '(\w+)' not found", message):
        key = re.search(r"full_key: (\S+)", f"{message}\n{cause}")
        return f"{key[1] if key else 'the configuration'}: set the environment variable {found[1]}"
    if found := re.search(r"Error parsing override '(.+)'|LexerNoViableAltException: (.+)", message):
        return f"{found[1] or found[2]}: cannot be read; put the value in quotes within quotes: key=\"'value'\""
    if places := re.findall(r'(.*)\n +in "([^"\n]+)", line (\d+)', message):
        what, file, line = places[-1]
        return f"{file}, line {line}: {what.strip()}"
    text = message.strip() or cause.strip() or "the configuration could not be composed"
    where = re.search(r"full_key: (\S+)", f"{message}\n{cause}")
    first = text.splitlines()[0]
    return f"{where[1]}: {first[:1].lower()}{first[1:]}" if where else first
