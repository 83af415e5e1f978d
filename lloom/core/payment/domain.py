"""Where signatures about money are good: one contract on one chain, or nowhere."""

from __future__ import annotations

from lloom.core.eip712 import Domain
from lloom.core.identity import parse_address
from lloom.core.settings import Chain


def domain(chain: Chain | None) -> Domain:
    """The domain of what is signed for `chain`, whose contract must be known by now; None: of what nobody pays."""
    if chain is None:
        return Domain()
    assert chain.contract is not None, "the contract is looked up when a node starts"
    return Domain(chain.id, parse_address(chain.contract))
