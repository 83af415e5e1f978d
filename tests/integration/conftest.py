"""One anvil for all tests that need a chain; each test finds it as it was at first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from chain_support import Local

from lloom.adapters.chain import anvil, banking
from lloom.core.errors import ConfigError


@pytest.fixture(scope="session")
def anvil_url() -> Iterator[str]:
    """A chain that makes a block for each transaction, whose blocks are safe after two more, and final after four."""
    try:
        anvil.binary()
    except ConfigError as error:
        pytest.skip(str(error))
    with anvil.started(31337, options=("--slots-in-an-epoch", "2")) as url:
        yield url


@pytest.fixture
async def local(anvil_url: str) -> AsyncIterator[Local]:
    """The chain with the contract."""
    chain = Local(anvil_url)
    async with chain.wallet(anvil.RICH) as wallet:
        await banking.deploy(wallet)
    before = await chain.call("evm_snapshot")
    await chain.call("anvil_setNextBlockBaseFeePerGas", hex(10**9))  # fees are not part of a snapshot
    await chain.mine()
    yield chain
    assert await chain.call("evm_revert", before)
    await chain.call("anvil_dropAllTransactions")
    await chain.call("evm_setAutomine", True)
