"""The committed interface and bytecode of the contract, read once. It calls nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from lloom.core.errors import ConfigError
from lloom.core.identity import keccak

PLACE: Final = Path(__file__).resolve().parents[3] / "contracts" / "artifacts" / "Accounting.json"
SELECTOR: Final = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """A function or an error: its first four bytes, and ABI types in and out."""

    name: str
    selector: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Artifact:
    """What is known of the contract without asking a chain."""

    functions: Mapping[str, Entry]
    errors: Mapping[bytes, Entry]
    """By selector."""
    creation: bytes
    """The code that is run to deploy it; its constructor takes nothing, so it is the same everywhere."""
    deployed: bytes
    """The code that then stands there, immutables zero."""
    immutables: tuple[tuple[int, int], ...]
    """Start and length of the places that differ from chain to chain."""

    def masked(self, code: bytes) -> bytes:
        """`code` with zeros where immutables stand: equal to `deployed` if it is the same contract."""
        found = bytearray(code)
        for start, length in self.immutables:
            found[start : start + length] = bytes(length)
        return bytes(found)


@lru_cache(maxsize=1)
def artifact() -> Artifact:
    """The contract's artifact; ConfigError if the file is not there or no artifact."""
    try:
        tree = json.loads(PLACE.read_text())
        places = [place for each in tree["immutableReferences"].values() for place in each]
        abi: list[dict[str, Any]] = tree["abi"]
        functions = {each.name: each for each in map(_entry, _kind(abi, "function"))}
        return Artifact(
            functions,
            {each.selector: each for each in map(_entry, _kind(abi, "error"))},
            _bytes(tree["bytecode"]),
            _bytes(tree["deployedBytecode"]),
            tuple(sorted((place["start"], place["length"]) for place in places)),
        )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{PLACE} cannot be read; it comes with Lloom and describes the contract") from error


def _kind(abi: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [entry for entry in abi if entry["type"] == kind]


def _entry(entry: dict[str, Any]) -> Entry:
    inputs = tuple(map(_type, entry["inputs"]))
    name = entry["name"]
    selector = keccak(f"{name}({','.join(inputs)})".encode())[:SELECTOR]
    return Entry(name, selector, inputs, tuple(map(_type, entry.get("outputs", ()))))


def _type(member: dict[str, Any]) -> str:
    """The canonical type: tuples as `(address,uint64)[]`."""
    if not member["type"].startswith("tuple"):
        return str(member["type"])
    return f"({','.join(map(_type, member['components']))}){member['type'].removeprefix('tuple')}"


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
