"""The committed interface and bytecode are what the sources compile to."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

CONTRACTS = Path(__file__).parents[2] / "contracts"
ARTIFACT = CONTRACTS / "artifacts" / "Accounting.json"
MASK = 32


@pytest.fixture(scope="module")
def compiled() -> str:
    """What the pinned compiler makes of the sources now."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not here to run the compiler")
    if not (CONTRACTS / "node_modules" / "solc").is_dir():
        pytest.skip("the compiler is not here: npm install in contracts/")
    made = subprocess.run([node, "artifact.js"], cwd=CONTRACTS, capture_output=True, text=True, timeout=100)
    assert made.returncode == 0, made.stderr
    return made.stdout


def test_the_artifact_is_what_the_sources_compile_to(compiled: str) -> None:
    assert ARTIFACT.read_text() == compiled, "run `node contracts/artifact.js --write`"


def test_the_artifact_can_be_deployed_and_its_immutables_be_masked() -> None:
    artifact = json.loads(ARTIFACT.read_text())
    assert sorted(artifact) == ["abi", "bytecode", "deployedBytecode", "immutableReferences"]
    creation, deployed = (bytes.fromhex(artifact[name].removeprefix("0x")) for name in ("bytecode", "deployedBytecode"))
    assert 0 < len(deployed) <= 24_576, "EIP-170"
    assert len(deployed) < len(creation) <= 49_152, "EIP-3860"
    places = [place for places in artifact["immutableReferences"].values() for place in places]
    assert places
    for place in places:
        assert place["length"] == MASK
        assert not any(deployed[place["start"] : place["start"] + MASK]), "an immutable is zero until it is deployed"


def test_the_interface_is_the_one_that_is_documented() -> None:
    abi = json.loads(ARTIFACT.read_text())["abi"]
    functions = {entry["name"] for entry in abi if entry["type"] == "function"}
    assert {"deposit", "settle", "publishUsage", "withdrawEarnings", "reserveFor", "eip712Domain"} <= functions
    assert {entry["stateMutability"] for entry in abi if entry.get("name") == "deposit"} == {"payable"}
    payable = [entry["name"] for entry in abi if entry.get("stateMutability") == "payable"]
    assert payable == ["deposit"], "nothing else takes money"
