"""Every command of the README is one that the program takes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lloom.__main__ import compose
from lloom.core.configuration import argv, checks

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text()


def commands(program: str) -> Iterator[list[str]]:
    """The words after `program` in each line of the README's shell examples."""
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.search(rf"(?:^|\| ){re.escape(program)} (.*?)(?:\s+#.*)?$", line)
            if found:
                yield shlex.split(found[1])


NODES = [words for words in commands("python -m lloom") if not any(word.startswith("-") for word in words)]


@pytest.mark.parametrize("words", NODES, ids=" ".join)
def test_a_command_line_of_the_readme_composes(words: list[str]) -> None:
    tree = compose(argv.rewrite(words))
    assert tree is not None
    checks.settings(tree)


def test_the_readme_has_such_command_lines() -> None:
    assert len(NODES) > 8


@pytest.mark.parametrize("words", list(commands("./scripts/just")), ids=" ".join)
def test_a_recipe_of_the_readme_is_in_the_justfile(words: list[str]) -> None:
    command = [Path(sys.executable).parent / "just", "--summary"]
    recipes = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert words[0] in recipes


@pytest.mark.parametrize("path", re.findall(r"\]\(([^)h][^)]*)\)|`((?:conf|scripts)/[^`* ]+)", TEXT), ids="".join)
def test_a_file_that_the_readme_names_is_there(path: tuple[str, str]) -> None:
    assert (ROOT / "".join(path)).exists()


def test_every_backend_of_the_readme_is_a_file() -> None:
    table = TEXT[TEXT.index("| backend |") : TEXT.index("```bash\nexport")]
    names = {name for row in table.splitlines()[2:] if row for name in re.findall(r"`([a-z0-9]+)`", row.split("|")[1])}
    assert names == {path.stem for path in (ROOT / "conf" / "llm").glob("*.yaml")}
