"""ARCHITECTURE.md names every module of the three rings, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()


def rows(ring: str) -> list[tuple[str, str]]:
    """Both cells of the table about `ring`, row by row; the first is empty where one before goes on."""
    table = TEXT.split(f"| in `{ring}/` | |\n|---|---|\n")[1].split("\n\n")[0]
    return [(cells[1], cells[2]) for cells in (row.split("|") for row in table.splitlines())]


def there(folder: Path) -> set[str]:
    return {f"{each.name}/" for each in folder.iterdir() if (each / "__init__.py").exists()} | {
        each.stem for each in folder.glob("*.py") if each.stem != "__init__"
    }


@pytest.mark.parametrize("ring", ["core", "adapters", "actors", "commands"])
def test_the_tables_name_what_is_there_and_nothing_else(ring: str) -> None:
    named = {word for first, _ in rows(ring) for word in re.findall(r"`([\w/]+)`", first)}
    beside = {word for _, last in rows(ring) for word in re.findall(r"`([\w/]+)`", last)}
    assert named <= there(ROOT / "lloom" / ring)
    assert there(ROOT / "lloom" / ring) <= named | beside


@pytest.mark.parametrize("ring", ["core", "adapters"])
def test_what_is_named_of_a_package_stands_in_it(ring: str) -> None:
    package = ""
    for first, last in rows(ring):
        package = first.strip(" `/") if first.strip() else package
        if "`" not in package:  # else several share the row
            known = {each.stem for each in (ROOT / "lloom" / ring / package).rglob("*.py")}
            assert set(re.findall(r"`(\w+)`", last)) <= known | {"kademlia"}, package
